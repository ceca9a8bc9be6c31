"""What a run watches: losses and gradients that are not finite, gradients that jump, memory that runs out."""

from __future__ import annotations

import json
import math
import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RunCommand
from forked import Forked, command
from lightning_fabric import Fabric
from torch import distributed

from tests.train.toy import MakeRecipe, toy_command, with_batch_norm
from vidpipe.errors import CheckpointError, TrainingError
from vidpipe.loader import Batch
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import Tally, evaluate
from vidpipe.train.guard import Guard
from vidpipe.train.loop import train
from vidpipe.train.runlog import read_metrics
from vidpipe.train.scores import Evaluation
from vidpipe.train.step import Learner

WILD = {"optim": {"lr": 1e30, "clip_grad": None}, "schedule": {"warmup_steps": 0}}  # nothing is finite after one step


def test_a_loss_that_is_not_finite_names_the_clips(toy_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    shown = vidpipe(*toy_command(toy_shards, WILD), "--out", tmp_path)
    assert shown.code == 1
    assert re.search(r"^error: step \d+: the loss is (nan|inf); clips 0", shown.err, flags=re.MULTILINE)
    lines = (tmp_path / "bad-batches.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])["keys"]) == 8


def test_what_failed_runs_wrote_down_is_none_of_the_next_ones(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(TrainingError):
        train(toy_recipe(**WILD), shards=toy_shards, out=out, device="cpu", quiet=True)
    (out / "bad-samples.jsonl").write_text("{}\n")
    assert (out / "bad-batches.jsonl").exists()
    train(toy_recipe(schedule={"steps": 3}), shards=toy_shards, out=out, device="cpu", quiet=True)
    assert not list(out.glob("*.jsonl"))
    lines = [json.dumps({"step": step, "keys": []}) for step in (2, 4)]
    (out / "gradient-spikes.jsonl").write_text("\n".join(lines))
    train(toy_recipe(schedule={"steps": 5}), shards=toy_shards, out=out, resume=True, device="cpu", quiet=True)
    assert (out / "gradient-spikes.jsonl").read_text() == f"{lines[0]}\n"


def test_steps_that_are_left_out_are_counted_and_no_loss_is_made_up(
    toy_shards: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    skipping = {**WILD, "on_nan": "skip", "eval": {"every_epochs": 0}}
    shown = vidpipe(*toy_command(toy_shards, skipping), "--out", tmp_path / "a", "--json")
    result = json.loads(shown.out, parse_constant=pytest.fail)
    assert shown.code == 0 and (result["steps"], result["skipped_steps"], result["clips"]) == (9, 8, 8)
    assert result["loss"] is None
    assert "done: 9 steps, 8 steps left out whose loss or gradients were not finite" in shown.err
    first, *rest = read_metrics(tmp_path / "a")
    assert first["loss"] > 0 and first["grad_norm"] > 0 and first["skipped_steps"] == 0
    assert [row["skipped_steps"] for row in rest] == [1] * 8
    assert not any(name in row for row in rest for name in ("loss", "grad_norm", "top1"))
    shown = vidpipe(*toy_command(toy_shards, {**skipping, "max_skips": 3}), "--out", tmp_path / "b")
    assert shown.code == 1 and "error: step 4: 3 steps in a row were left out" in shown.err


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


def test_a_scale_that_finds_no_finite_gradients_ends_the_run(tmp_path: Path) -> None:
    guard = Guard(tmp_path, policy="raise", max_skips=3, rank=0, say=print)
    step = partial(guard.accepts, loss=1.0, keys=["a"])
    assert all(step(step=number, grad_norm=None, overflowed=True) for number in (1, 2))
    assert step(step=3, grad_norm=1.0)
    assert all(step(step=number, grad_norm=None, overflowed=True) for number in (4, 5))
    with pytest.raises(TrainingError, match="step 6: 3 steps in a row were left out"):
        step(step=6, grad_norm=None, overflowed=True)


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


def test_a_sound_step_counts_at_any_number_of_processes(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at ten that are alike, whose mean of ones is less than one as NCCL takes it: a sum of tenths."""
    original = Learner.take_step

    def all_reduce(tensor: torch.Tensor, op: Any = distributed.ReduceOp.SUM) -> torch.Tensor:
        share = tensor / 10 if op == distributed.ReduceOp.AVG else tensor.clone()
        for _ in range(9 if op in (distributed.ReduceOp.AVG, distributed.ReduceOp.SUM) else 0):
            share += tensor / 10 if op == distributed.ReduceOp.AVG else tensor
        return tensor.copy_(share)

    def by_fabric(self: Fabric, data: torch.Tensor, group: Any = None, reduce_op: str = "mean") -> torch.Tensor:
        return all_reduce(data, getattr(distributed.ReduceOp, {"mean": "AVG"}.get(reduce_op, reduce_op.upper())))

    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Fabric, "world_size", 10)
            patch.setattr(Fabric, "all_reduce", by_fabric)
            patch.setattr(distributed, "all_reduce", all_reduce)
            return original(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "take_step", take_step)
    recipe = toy_recipe(on_nan="skip", schedule={"steps": 2, "warmup_steps": 0})
    assert train(recipe, shards=toy_shards, out=tmp_path, device="cpu", quiet=True).skipped_steps == 0


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


def test_a_jump_of_the_gradient_norm_is_said_and_every_process_writes_down_its_clips(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "a/run"  # which the first process has made on another machine
    path = folder / "gradient-spikes.jsonl"
    for rank, clips in enumerate((["a", "b", "c", "d", "e"], ["f"])):
        guard = Guard(folder, policy="raise", max_skips=2, rank=rank, say=said.append)
        for step, norm in enumerate([1.0, 2.0, 1.5, 9.0, 40.0, 2.0], start=1):
            assert guard.accepts(step=step, loss=1.0, grad_norm=norm, keys=clips)
    shown = f"step 5: gradient norm 40, usually 1.47; clips %s (all in {path})"
    assert said == [shown % "a, b, c, d and 1 more", shown % "f"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["grad_norm"], line["rank"]) for line in lines] == [(5, 40.0, 0), (5, 40.0, 1)]
    assert [line["keys"] for line in lines] == [["a", "b", "c", "d", "e"], ["f"]]


def test_only_steps_left_out_in_a_row_end_a_run(tmp_path: Path) -> None:
    """Also those that are left out for another process's clips."""
    guard = Guard(tmp_path, policy="skip", max_skips=3, rank=0, say=lambda sentence: None)
    bad = [False, True, True, False, True, True]
    for step, left_out in enumerate(bad, start=1):
        assert guard.accepts(step=step, loss=1.0, grad_norm=1.0, keys=["a"], left_out=left_out) != left_out
    with pytest.raises(TrainingError, match="step 7: 3 steps in a row"):
        guard.accepts(step=7, loss=math.nan, grad_norm=1.0, keys=["a"], left_out=True)


def test_running_out_of_memory_says_what_would_help(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMuch more of it.")

    monkeypatch.setattr(Learner, "take_step", take_step)
    with pytest.raises(TrainingError) as caught:
        train(toy_recipe(optim={"accumulate": 2}), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    message = str(caught.value)
    assert message.startswith("step 1, 4 clips at a time on each device: out of memory (")
    assert "; try --set optim.accumulate=4 " in message
    assert "model.checkpointing=true" in message and "--batch-size" in message and "\n" not in message


@pytest.mark.parametrize("place", ["vidpipe.train.loop.build_learner", "vidpipe.train.loop.open_eval_loader"])
def test_running_out_of_memory_is_one_line_wherever_it_happens(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMuch more of it.")

    monkeypatch.setattr(place, fail)
    with pytest.raises(TrainingError, match=r"training: out of memory \(.*\); try --set optim\.accumulate=2 "):
        train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)


def train_with_little_memory(*arguments: object) -> None:
    """`vidpipe ARGUMENTS...` whose steps may take 64 MiB of addresses more than it has when the first one begins."""
    original = Learner.take_step

    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**26
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return original(self, *args, **kwargs)

    Learner.take_step = take_step  # type: ignore[method-assign]
    command(*arguments)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no limit of addresses is kept")
def test_running_out_of_the_machines_memory_is_one_line_with_numbers(toy_shards: Path, tmp_path: Path) -> None:
    large = {"data": {"size": 256, "batch_size": 24}, "model": {"width": 192}}
    process = Forked(train_with_little_memory, *toy_command(toy_shards, large), "--out", tmp_path)
    said = process.finish(1)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: step 1, 24 clips at a time on each device: out of memory (")
    assert "GiB held by this process" in line and "available to it" in line
    assert "ulimit -v" in line and "--batch-size" in line and "Traceback" not in said
