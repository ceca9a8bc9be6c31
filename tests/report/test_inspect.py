"""`vidpipe inspect --grid`: a contact sheet of what there is, and one clear line where there is nothing to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from command_line import RunCommand
from PIL import Image


def test_splits_without_a_sample_are_left_out_of_the_grid(
    motion_shards: Path, vidpipe: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "labels.csv").write_text("path,label\nbad.mp4,a\n")
    out, grid = tmp_path / "shards", tmp_path / "grid.png"
    prep = ("prep", "csv", "--source", tmp_path, "--set", "annotations=labels.csv", "--max-rejects", "100%")
    assert vidpipe(*prep, "--split", "train", "--out", out).code == 0
    nothing = vidpipe("inspect", out, "--grid", grid)
    assert (nothing.code, nothing.out, nothing.err.count("\n")) == (2, "", 1)
    assert "holds no clips to show" in nothing.err and not grid.exists()

    (out / "val").symlink_to(motion_shards / "val")
    some = vidpipe("inspect", out, "--grid", grid, "--clips", 3)
    assert some.code == 0 and "motion/val: 16 clips" in some.out
    rules = (np.asarray(Image.open(grid).convert("RGB"))[:, 20] == 222).all(axis=1)
    assert rules.sum() == 3
