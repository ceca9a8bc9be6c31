"""`train` as a whole on small shards: it learns, writes what it promises, stops and goes on exactly, and refuses politely."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import RunCommand
from loader.damage import copied, garbage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.runs import loss_curve, raise_signal_at, train_until_stopped
from tests.train.toy import TOY, MakeRecipe, rename_classes, toy_command
from vidpipe.errors import TrainingError, UsageError
from vidpipe.train import loop, run
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.runlog import read_metrics
from vidpipe.train.scores import Evaluation


def scores(run: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["val_loss"]) for row in read_metrics(run) if "val_loss" in row]


def raise_once(error: Exception, *, after: int) -> Callable[..., Any]:
    """What scores an evaluation, but raises once, after so many that it scored."""
    original, calls = run.score, iter(range(after + 1))

    def score(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) == after:
            raise error
        return original(*args, **kwargs)

    return score


def test_a_run_learns_and_leaves_its_folder(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = toy_recipe(schedule={"steps": 40}, log={"every_steps": 4, "tensorboard": True, "pictures": True})
    result = train(recipe, shards=toy_shards, out=tmp_path / "run", device="cpu", quiet=True)
    assert result.exit_code == 0
    assert result.best_top1 == 1.0
    assert result.clips == 40 * 8
    assert 0 <= result.data_wait_share < 1
    assert {path.name for path in result.out.iterdir()} == {
        "step-000040-2.ckpt",
        "last.ckpt",
        "best.ckpt",
        "metrics.csv",
        "recipe.yaml",
        "tensorboard",
        "curves.png",
        "input.png",
        "confusion.png",
    }
    rows = read_metrics(result.out)
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert sum("val_top1" in row for row in rows) == 14  # 13 whole epochs of 3 steps, and the end
    again = evaluate(result.out, shards=toy_shards, device="cpu", backend="torch")
    assert again.top1 == result.best_top1
    assert (again.videos, again.clips) == (8, 16)


def test_the_command_shows_how_it_goes_and_logs_it(toy_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**TOY, "log": {"every_steps": 3}}))
    arguments = (tmp_path / "toy.yaml", "--shards", toy_shards, "--out", tmp_path / "run", "--device", "cpu")
    shown = vidpipe("train", *arguments, "--set", "mixing.cutmix=0", "--json")
    assert shown.code == 0 and json.loads(shown.out)["steps"] == 9
    (line,) = [line for line in shown.err.splitlines() if line.startswith("step 9/9")]
    parts = ("epoch 3", "loss 1.", "acc ", "lr ", "clips/s", "data wait ", "eta 0:00")
    assert [part for part in parts if part not in line] == []
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.ckpt")}
    over = vidpipe("train", *arguments, "--resume", "--json")
    assert over.code == 0 and json.loads(over.out, parse_constant=pytest.fail)["loss"] is None
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.ckpt")} == before
    again = vidpipe("train", *arguments, "--resume", "--set", "schedule.steps=10")
    assert again.code == 0 and "going on from step 9" in again.err
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in logged] == [3, 6, 9, 10]
    assert dict(logged) == pytest.approx(dict(loss_curve(tmp_path / "run")))
    assert [event.step for event in events.Scalars("val/top1")] == [3, 6, 9, 10]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [3, 6, 9, 10]
    assert vidpipe("train", *arguments).code == 2


@pytest.mark.parametrize(
    ("sections", "steps"),
    [
        ({}, 6),
        (
            {
                "seed": 2**31 - 1,
                "ema": 0.9,
                "optim": {"accumulate": 2},
                "mixing": {"mixup": 0.8, "cutmix": 1.0, "erase": 0.5},
                "label_smoothing": 0.1,
                "log": {"every_steps": 4},
            },
            5,
        ),
    ],
    ids=["plain, at the end of an epoch", "everything"],
)
def test_a_stopped_run_goes_on_bit_by_bit(
    toy_shards: Path,
    toy_recipe: MakeRecipe,
    tmp_path: Path,
    sections: dict[str, Any],
    steps: int,
) -> None:
    recipe = toy_recipe(**sections)
    train(recipe, shards=toy_shards, out=tmp_path / "whole", device="cpu", quiet=True)
    train_until_stopped(recipe, toy_shards, tmp_path / "parts", steps=steps)
    finished = train(recipe, shards=toy_shards, out=tmp_path / "parts", resume=True, device="cpu", quiet=True)
    assert (finished.steps, finished.stopped_by) == (9, None)
    whole, parts = read_checkpoint(tmp_path / "whole/last.ckpt"), read_checkpoint(tmp_path / "parts/last.ckpt")
    assert whole.metrics == parts.metrics
    for name, weight in whole.best_weights().items():
        assert torch.equal(weight, parts.best_weights()[name]), name
    assert loss_curve(tmp_path / "whole") == loss_curve(tmp_path / "parts")
    assert scores(tmp_path / "whole") == scores(tmp_path / "parts")


def test_ctrl_c_saves_and_says_130(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_signal_at(monkeypatch, 1, signal.SIGINT)
    result = train(toy_recipe(), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert (result.exit_code, result.steps) == (130, 2)
    assert read_checkpoint(tmp_path).step == 2


def test_a_signal_while_the_run_is_prepared_ends_it_before_its_first_step(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, original = toy_recipe(log={"pictures": True}), loop.build_model

    def build_model(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "build_model", build_model)
        stopped = train(recipe, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert (stopped.steps, stopped.stopped_by, stopped.exit_code) == (0, "SIGTERM", 0)
    assert train(recipe, shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True).steps == 9
    assert (tmp_path / "input.png").is_file()
    assert [step for step, _ in loss_curve(tmp_path)] == list(range(1, 10))


def test_a_failing_evaluation_costs_no_step(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_recipe(), shards=toy_shards, out=tmp_path / "whole", device="cpu", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(run, "score", raise_once(TrainingError("out of memory"), after=1))
        with pytest.raises(TrainingError, match="out of memory"):
            train(toy_recipe(), shards=toy_shards, out=tmp_path / "run", device="cpu", quiet=True)
    assert read_checkpoint(tmp_path / "run", which="last").step == 6
    train(toy_recipe(), shards=toy_shards, out=tmp_path / "run", resume=True, device="cpu", quiet=True)
    assert scores(tmp_path / "run") == scores(tmp_path / "whole")
    assert loss_curve(tmp_path / "run") == loss_curve(tmp_path / "whole")


def test_ctrl_c_in_the_last_evaluation_does_not_end_the_run(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run.score

    def score(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    once = toy_recipe(eval={"every_epochs": 4})
    with monkeypatch.context() as patch:
        patch.setattr(run, "score", score)
        stopped = train(once, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert (stopped.steps, stopped.exit_code) == (9, 130) and "--resume" in stopped.line()
    finished = train(once, shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
    assert finished.exit_code == 0 and finished.evaluation is not None
    assert [step for step, _ in scores(tmp_path)] == [9]


def test_damaged_samples_are_left_out_counted_and_listed(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    shards, out = tmp_path / "toy", tmp_path / "run"
    damaged = [copied(toy_shards / split, shards, sample=3) for split in ("train", "val")]
    for damage in damaged:
        damage.overwrite(garbage)
    skipping = toy_recipe(data={"on_bad": "skip"})
    result = train(skipping, shards=shards, out=out, device="cpu", quiet=True)
    assert result.bad_samples == 2 and "2 damaged samples left out" in result.line()
    listed = [json.loads(line) for line in (out / "bad-samples.jsonl").read_text().splitlines()]
    assert sorted(line["split"] for line in listed) == ["train", "val"]
    assert all(any(damage.key in line["error"] for damage in damaged) for line in listed)
    assert sum(row["bad_samples"] for row in read_metrics(out) if "bad_samples" in row) == 2
    assert isinstance(result.evaluation, Evaluation) and result.evaluation.clips == 15
    again = evaluate(out, shards=shards, device="cpu", backend="torch", on_bad="skip")
    assert (again.clips, again.bad_samples) == (15, 1) and "1 damaged samples left out" in again.line()
    longer = toy_recipe(data={"on_bad": "skip", "max_bad": 0.5}, schedule={"steps": 12})
    train(longer, shards=shards, out=out, resume=True, device="cpu", quiet=True)
    assert len((out / "bad-samples.jsonl").read_text().splitlines()) == 2


def test_accumulation_gives_the_same_losses(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("four", 4)):
        recipe = toy_recipe(optim={"accumulate": parts}, model={"dropout": 0.0})
        train(recipe, shards=toy_shards, out=tmp_path / name, device="cpu", quiet=True)
    one, four = (dict(loss_curve(tmp_path / name)) for name in ("one", "four"))
    assert one == pytest.approx(four, rel=1e-4)


@pytest.mark.slow
def test_compiled_and_recomputed_models_train_alike(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # inductor takes minutes here
    plain = {"model": {"dropout": 0.0}}
    runs = {"plain": {}, "compiled": {"compile": True}, "recomputed": {"model": {"checkpointing": True}}}
    for name, sections in runs.items():
        model = {**plain["model"], **sections.get("model", {})}
        recipe = toy_recipe(**{**sections, "model": model})
        train(recipe, shards=toy_shards, out=tmp_path / name, device="cpu", quiet=True)
    curves = {name: dict(loss_curve(tmp_path / name)) for name in runs}
    assert curves["compiled"] == pytest.approx(curves["plain"], rel=1e-5)
    assert curves["recomputed"] == pytest.approx(curves["plain"], rel=1e-5)
    names = [read_checkpoint(tmp_path / name).weights.keys() for name in runs]
    assert names[0] == names[1] == names[2]
    longer = toy_recipe(**plain, schedule={"steps": 10})
    assert (
        train(longer, shards=toy_shards, out=tmp_path / "compiled", resume=True, device="cpu", quiet=True).steps == 10
    )


def test_without_a_val_split_it_trains_all_the_same(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy_shards / "train", tmp_path / "toy/train")
    result = train(toy_recipe(), shards=tmp_path / "toy", out=tmp_path / "run", device="cpu")
    assert result.evaluation is None
    assert "no 'val' split" in capsys.readouterr().err
    assert not (tmp_path / "run/best.ckpt").exists()
    alone = train(toy_recipe(), shards=tmp_path / "toy/train", out=tmp_path / "alone", device="cpu")
    assert alone.steps == 9 and "itself" not in capsys.readouterr().err
    val = train(
        toy_recipe(schedule={"epochs": 1, "steps": None, "warmup_steps": 0}),
        shards=toy_shards / "val",
        out=tmp_path / "val",
        device="cpu",
    )
    assert val.steps == 1 and f"{toy_shards / 'val'}: is the split 'val' itself: trained on" in capsys.readouterr().err


def test_refusals(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, vidpipe: RunCommand) -> None:
    out = tmp_path / "run"
    train(toy_recipe(precision="auto"), shards=toy_shards, out=out, device="cpu", quiet=True)
    assert yaml.safe_load((out / "recipe.yaml").read_text())["precision"] == "fp32"
    with pytest.raises(UsageError, match="precision 'fp32' -> 'bf16'"):
        train(toy_recipe(precision="bf16"), shards=toy_shards, out=out, resume=True, device="cpu", quiet=True)
    with pytest.raises(UsageError, match="--resume"):
        train(toy_recipe(), shards=toy_shards, out=out, device="cpu", quiet=True)
    with pytest.raises(UsageError, match=r"optim\.lr 0\.003 -> 0\.5"):
        train(toy_recipe(optim={"lr": 0.5}), shards=toy_shards, out=out, resume=True, device="cpu", quiet=True)
    too_large = r"26 training clips don't fill one batch of 32; take a smaller --batch-size, or data\.drop_last=false"
    for parts in (1, 2):
        large = toy_recipe(data={"batch_size": 32}, optim={"accumulate": parts})
        with pytest.raises(UsageError, match=too_large):
            train(large, shards=toy_shards, out=tmp_path / "x", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="can't be divided"):
        train(toy_recipe(optim={"accumulate": 3}), shards=toy_shards, out=tmp_path / "x", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="7 frames"):
        train(toy_recipe(data={"frames": 7}), shards=toy_shards, out=tmp_path / "x", device="cpu", quiet=True)
    assert not (tmp_path / "x").exists()
    shutil.copytree(toy_shards, tmp_path / "other")
    rename_classes(tmp_path / "other/train", ("blue", "green", "grey", "teal"))
    shown = vidpipe(*toy_command(tmp_path / "other", {}), "--out", tmp_path / "x")
    assert shown.code == 2 and "class 3 is 'teal' in train, 'red' in val" in shown.err
    rename_classes(tmp_path / "other/val", ("blue", "green", "grey", "teal"))
    shown = vidpipe(*toy_command(tmp_path / "other", {}), "--out", out, "--resume")
    assert shown.code == 1 and "class 3 is 'red' in the checkpoint, 'teal' in the shards" in shown.err
    for split in ("train", "val"):
        rename_classes(tmp_path / "other" / split, ("red",))
    shown = vidpipe(*toy_command(tmp_path / "other", {}), "--out", tmp_path / "x")
    assert shown.code == 2 and "got the classes ['red'], expected two or more" in shown.err


def test_a_longer_run_may_go_on_from_a_shorter_one(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    for epochs in (1, 3):
        recipe = toy_recipe(schedule={"steps": None, "epochs": epochs, "warmup_steps": 0}, eval={"every_steps": None})
        result = train(recipe, shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
        assert result.steps == result.total_steps == 3 * epochs
        assert read_checkpoint(tmp_path, which="last").epoch == epochs
