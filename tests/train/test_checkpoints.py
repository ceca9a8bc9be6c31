"""Which checkpoints a run folder holds, and that a damaged run folder is not taken for an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.loop import train


def test_the_last_checkpoints_and_the_best_are_kept(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    sections = {"checkpoint": {"every_steps": 1, "keep_last": 3}, "eval": {"every_steps": 2}}
    (tmp_path / "step-000001.ckpt.tmp").write_bytes(b"what a killed run left")
    train(toy_recipe(**sections, optim={"lr": 3.0}), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    steps = [read_checkpoint(path).step for path in sorted(tmp_path.glob("step-*.ckpt"))]
    best = read_checkpoint(tmp_path / "best.ckpt")
    assert (
        sorted({*steps, best.step}) == steps and steps[-3:] == [7, 8, 9] and len(steps) == (3 if best.step > 6 else 4)
    )
    assert best.metrics["best_top1"] == best.metrics["val_top1"]
    assert read_checkpoint(tmp_path, which="last").step == 9
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_whose_last_checkpoint_is_gone_is_not_begun_anew(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    (tmp_path / "last.ckpt").resolve().unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt: leads to step-000009\.ckpt, which is not there"):
        train(toy_recipe(), shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
