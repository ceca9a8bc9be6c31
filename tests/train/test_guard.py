"""What a run watches: losses and gradients that are not finite, gradients that jump, memory that runs out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.toy import MakeRecipe, with_batch_norm
from vidpipe.errors import CheckpointError, TrainingError
from vidpipe.loader import Batch
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import Tally, evaluate
from vidpipe.train.guard import Guard
from vidpipe.train.loop import train
from vidpipe.train.scores import Evaluation
from vidpipe.train.step import Learner


def test_a_loss_that_is_not_finite_names_the_clips(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    wild = {"lr": 1e30, "clip_grad": None}
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf); clips 0"):
        train(toy_recipe(optim=wild), shards=toy_shards, out=tmp_path / "a", device="cpu", quiet=True)
    lines = (tmp_path / "a/bad-batches.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])["keys"]) == 8
    result = train(
        toy_recipe(optim=wild, on_nan="skip"), shards=toy_shards, out=tmp_path / "b", device="cpu", quiet=True
    )
    assert result.steps == 9


def test_gradients_that_are_not_finite_end_the_run_too(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "clip_gradients", lambda self: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"step 1: the norm of the gradients is nan; clips 0"):
        train(toy_recipe(), shards=toy_shards, out=tmp_path / "a", device="cpu", quiet=True)
    skipping = toy_recipe(on_nan="skip")
    before = read_checkpoint(train(skipping, shards=toy_shards, out=tmp_path / "b", device="cpu", quiet=True).out)
    monkeypatch.undo()
    fresh = toy_recipe(optim={"lr": 1e-30}, schedule={"steps": 1, "warmup_steps": 0})
    untouched = read_checkpoint(train(fresh, shards=toy_shards, out=tmp_path / "c", device="cpu", quiet=True).out)
    for name, weight in untouched.weights.items():
        torch.testing.assert_close(weight, before.weights[name], atol=1e-20, rtol=0, msg=name)


def test_a_batch_that_is_left_out_stays_out_of_running_statistics_too(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.take_step

    def take_step(self: Learner, batches: Sequence[Batch], *, step: int, epoch: int) -> Any:
        if step == 3:
            batches = [replace(batch, video=batch.video * math.nan) for batch in batches]
        return original(self, batches, step=step, epoch=epoch)

    monkeypatch.setattr(Learner, "take_step", take_step)
    recipe = with_batch_norm(toy_recipe(on_nan="skip", ema=0.9))
    result = train(recipe, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert result.evaluation is not None and math.isfinite(result.evaluation.loss)
    assert len((tmp_path / "bad-batches.jsonl").read_text().splitlines()) == 1
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    for weights in (checkpoint.weights, checkpoint.best_weights()):
        assert any("running_mean" in name for name in weights)
        assert not [name for name, tensor in weights.items() if not tensor.isfinite().all()]


def test_an_evaluation_that_is_not_finite_is_never_the_best(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Tally.evaluation

    def evaluation(self: Tally, *args: Any, **kwargs: Any) -> Evaluation:
        return replace(original(self, *args, **kwargs), loss=math.nan)

    monkeypatch.setattr(Tally, "evaluation", evaluation)
    run = partial(train, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    with pytest.raises(TrainingError, match="step 3: the loss of the evaluation is nan"):
        run(toy_recipe())
    result = run(toy_recipe(on_nan="skip"), resume=True)
    assert (result.steps, result.evaluation) == (9, None) and not (tmp_path / "best.ckpt").exists()
    with pytest.raises(CheckpointError, match="its loss on val is nan"):
        evaluate(tmp_path, shards=toy_shards, device="cpu", quiet=True)


def test_a_jump_of_the_gradient_norm_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    guard = Guard(tmp_path / "bad.jsonl", policy="raise", rank=0, say=said.append)
    for step, norm in enumerate([1.0, 2.0, 1.5, 9.0, 40.0, 2.0], start=1):
        assert guard.accepts(step=step, loss=1.0, grad_norm=norm, keys=["a", "b", "c", "d", "e"])
    assert said == ["step 5: gradient norm 40, usually 1.47; clips a, b, c, d and 1 more"]


def test_running_out_of_memory_says_what_would_help(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMuch more of it.")

    monkeypatch.setattr(Learner, "take_step", take_step)
    with pytest.raises(TrainingError) as caught:
        train(toy_recipe(optim={"accumulate": 2}), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    message = str(caught.value)
    assert message.startswith("step 1, 4 clips at a time on each device: out of memory; try --set optim.accumulate=4 ")
    assert "model.checkpointing=true" in message and "--batch-size" in message and "\n" not in message


@pytest.mark.parametrize("place", ["vidpipe.train.loop.build_learner", "vidpipe.train.loop.open_eval_loader"])
def test_running_out_of_memory_is_one_line_wherever_it_happens(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMuch more of it.")

    monkeypatch.setattr(place, fail)
    with pytest.raises(TrainingError, match=r"training: out of memory; try --set optim\.accumulate=2 "):
        train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
