"""Which checkpoints a run folder holds, and that a damaged run folder is not taken for an empty one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError, UsageError
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.loop import train
from vidpipe.train.runlog import read_metrics
from vidpipe.train.setup import build_model
from vidpipe.train.writer import CheckpointWriter


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
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 10))


def test_checkpoints_come_after_so_many_epochs_and_at_the_end(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    for every, steps in ((0, [9]), (2, [6, 9])):
        out, sections = tmp_path / f"{every}", {"checkpoint": {"every_epochs": every, "keep_last": 9}}
        recipe = toy_recipe(**sections, eval={"every_epochs": 0})
        train(recipe, shards=toy_shards / "train", out=out, device="cpu", quiet=True)
        assert [read_checkpoint(path).step for path in sorted(out.glob("step-*.ckpt"))] == steps


def test_only_the_classifier_of_the_same_classes_is_started_from(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(toy_recipe(schedule={"steps": 3}), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    checkpoint = read_checkpoint(tmp_path)
    section, same = toy_recipe(model={"init": str(tmp_path)}).model, checkpoint.preprocessing
    others = same.model_copy(update={"classes": tuple(f"other {name}" for name in same.classes)})
    for preprocessing, is_taken in ((same, True), (others, False)):
        built = build_model(section, preprocessing, seed=5)
        assert torch.equal(built.module.state_dict()["head.weight"], checkpoint.weights["head.weight"]) == is_taken
        assert ("start afresh (head.weight, head.bias)" in built.loaded[0]) != is_taken


def test_the_best_link_moves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a run that is killed in between comes by the best step again, and best.ckpt is never older than what it knows."""
    replace = Path.replace

    def fail_on_last(self: Path, target: Path) -> Path:
        if target.name == "last.ckpt":
            raise OSError("no more")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_last)
    with (
        pytest.raises(CheckpointError, match="no more"),
        CheckpointWriter(tmp_path, keep_last=1, rank=0, sharded=False, device=torch.device("cpu")) as writer,
    ):
        writer.save({"step": 1}, best=True)
    assert (tmp_path / "best.ckpt").resolve().name == "step-000001.ckpt"


def test_a_checkpoint_that_cannot_be_written_ends_the_run_before_the_next_is_due(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    sections = {
        "checkpoint": {"every_steps": 20, "every_epochs": 0},
        "eval": {"every_epochs": 0},
        "schedule": {"steps": 40},
    }
    with pytest.raises(CheckpointError, match=r"step 20 can.t be saved: .*No space left .* --resume"):
        train(toy_recipe(**sections), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert 20 <= read_metrics(tmp_path)[-1]["step"] < 40


def test_a_run_goes_on_though_its_recipe_lacks_a_key_that_is_new(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    path = (tmp_path / "last.ckpt").resolve()
    state = torch.load(path, weights_only=True)
    assert state["recipe"].pop("on_nan") == "raise" and state["recipe"]["data"].pop("clips_per_sample") == 1
    torch.save(state, path)
    train(toy_recipe(), shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
    with pytest.raises(UsageError, match=r"data\.clips_per_sample 1 -> 2"):
        changed = toy_recipe(data={"clips_per_sample": 2})
        train(changed, shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)


def test_a_run_whose_last_checkpoint_is_gone_is_not_begun_anew(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    (tmp_path / "last.ckpt").resolve().unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt: leads to step-000009-2\.ckpt, which is not there"):
        train(toy_recipe(), shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
