"""`vidpipe inspect`: what shards hold, as text, as JSON and as a contact sheet, and one clear line where there is nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import RunCommand
from generated_video import write_video
from PIL import Image


def test_text_and_json_tell_what_became_of_a_mixed_data_set(tmp_path: Path, vidpipe: RunCommand) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    write_video(source / "a.mp4", "testsrc2=size=96x64:rate=25:duration=2")
    write_video(source / "b.mkv", "testsrc2=size=128x64:rate=10:duration=3")
    write_video(source / "c.mpg", "testsrc2=size=96x64:rate=25:duration=1", "-c:v", "mpeg2video")
    (source / "empty.mp4").touch()
    for name in ("text.mp4", "words.mp4"):
        (source / name).write_text("no video")
    labels = {"a.mp4": "run", "b.mkv": "run", "c.mpg": "walk", "empty.mp4": "walk", "text.mp4": "swim"}
    rows = [*labels.items(), ("words.mp4", "swim"), ("gone.mp4", "run")]
    (source / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    prep = ("prep", "csv", "--source", source, "--out", out, "--frames", 4, "--fps", 10, "--crop", "80x64")
    how = ("--codec", "jpeg", "--quality", 80, "--set", "decoder=decord", "--max-rejects", "60%")
    told = ("--set", "horizontal_flip=false", "--set", "normalize.mean=[0.5, 0.5, 0.5]")
    assert vidpipe(*prep, *how, *told).code == 0

    shown = vidpipe("inspect", out, "--json")
    assert shown.code == 0
    content = json.loads(shown.out)
    manifest = content["splits"]["train"]
    assert content == {"folder": str(out), "splits": {"train": json.loads((out / "train/manifest.json").read_text())}}
    assert manifest["counts"] == {
        **{"videos": 7, "written": 3, "rejected": 4, "clips": 3, "decoders": {"decord": 2, "ffmpeg": 1}},
        "rejects_by_reason": {"empty": 1, "missing": 1, "not-a-video": 2},
    }
    assert manifest["labels"] == {"run": 2, "swim": 0, "walk": 1}
    assert manifest["sources"] == {
        **{"seconds": pytest.approx(6, abs=0.1), "duration_seconds": pytest.approx([1, 2, 3], abs=0.05)},
        **{"sizes": {"96x64": 2, "128x64": 1}, "fps": {"25.00": 2, "10.00": 1}},
        "codecs": {"h264": 2, "mpeg2video": 1},
    }
    (mean, std) = (" ".join(f"{v:.3f}" for v in manifest["measured"][name]) for name in ("mean", "std"))
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 1e6
    assert 0 < size < 1

    assert vidpipe("inspect", out / "train").out.splitlines() == [
        f"csv/train: 3 clips of 3 videos, {size:.1f} MB",
        "  clip      4 frames, 10.0 frames/s; crop 80x64; codec jpeg quality 80",
        "  videos    7 = 3 written + 4 rejected",
        "            1 empty",
        "            1 missing",
        "            2 not-a-video",
        "  decoders  decord 2, ffmpeg 1",
        "  durations 1.0 to 3.0 s, median 2.0 s; 0.00 hours together",
        "  sources   96x64 (2), 128x64 (1); 25.00 (2), 10.00 (1) frames/s; h264 (2), mpeg2video (1)",
        f"  channels  mean {mean}, std {std} (measured)",
        "  trainers  normalise by mean 0.500 0.500 0.500, std 0.229 0.224 0.225, and must not mirror clips",
        "  labels    3 classes: run (2), walk (1), swim (0)",
    ]


def test_a_damaged_description_is_named(motion_shards: Path, vidpipe: RunCommand, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))
    shard = folder / "00000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'"clip"', b"'clip'", 1))
    shown = vidpipe("inspect", folder, "--grid", tmp_path / "grid.png")
    assert shown.code == 1 and not (tmp_path / "grid.png").exists()
    assert (
        re.search(r"^error: 00000\.tar: sample \d+-000: its description differs", shown.err)
        and shown.err.count("\n") == 1
    )


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
