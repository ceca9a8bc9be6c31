"""What a run writes down about itself: one row for a step, whatever is added when, and one event for each of its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.toy import MakeRecipe
from vidpipe.train.loop import train
from vidpipe.train.meter import Window
from vidpipe.train.runlog import METRICS, RunLog, read_metrics
from vidpipe.train.step_numbers import StepNumbers


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_a_step_has_one_row_across_flushes_and_resumes(tmp_path: Path) -> None:
    with RunLog(tmp_path, step=0, tensorboard=True) as log:
        log.add(1, epochs=0, values={"loss": 3.0})
        log.add(2, epochs=0, values={"loss": 2.0})
        log.flush()
        log.add(2, epochs=1, values={"val_loss": 2.5})
        log.add(3, epochs=1, values={"loss": 1.0})
    with RunLog(tmp_path, step=2, tensorboard=True) as log:
        log.add(2, epochs=1, values={"val_loss": 2.5, "val_top1": 0.5})
        log.add(3, epochs=1, values={"loss": 1.5})
    assert read_metrics(tmp_path) == [
        {"step": 1, "epoch": 0, "loss": 3.0},
        {"step": 2, "epoch": 0, "loss": 2.0, "val_loss": 2.5, "val_top1": 0.5},
        {"step": 3, "epoch": 1, "loss": 1.5},
    ]
    assert (tmp_path / METRICS).read_text().count("\n") == 4
    assert events(tmp_path, "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert events(tmp_path, "val/loss") == [(2, 2.5)] and events(tmp_path, "val/top1") == [(2, 0.5)]


def test_a_row_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    """Wherever that was; what goes on from the row before writes over it."""
    with RunLog(tmp_path, step=0, tensorboard=False) as log:
        for step, top5 in ((1, 0.5), (2, 1.5e-05)):
            log.add(step, epochs=0, values={"loss": 1.0, "val_top5": top5})
    whole = (tmp_path / METRICS).read_bytes()
    first = {"step": 1, "epoch": 0, "loss": 1.0, "val_top5": 0.5}
    last = whole.splitlines(keepends=True)[-1]
    for lost in range(1, len(last) + 1):
        (tmp_path / METRICS).write_bytes(whole[:-lost])
        assert read_metrics(tmp_path) == [first], lost
    with RunLog(tmp_path, step=1, tensorboard=False) as log:
        log.add(2, epochs=0, values={"loss": 1.0, "val_top5": 1.5e-05})
    assert (tmp_path / METRICS).read_bytes() == whole


def test_a_run_that_is_begun_anew_leaves_no_trace_of_the_one_before(tmp_path: Path) -> None:
    for loss in (3.0, 2.0):
        with RunLog(tmp_path, step=0, tensorboard=True) as log:
            log.add(1, epochs=0, values={"loss": loss})
    assert read_metrics(tmp_path) == [{"step": 1, "epoch": 0, "loss": 2.0}]
    assert events(tmp_path, "train/loss") == [(1, 2.0)]


def test_a_resumed_windows_pace_is_that_of_the_clips_it_timed() -> None:
    before = Window()
    step = StepNumbers(loss=1.0, correct=None, labelled=64, clips=64, grad_norm=1.0, keys=(), left_out=False)
    for _ in range(19):
        before.add(step, grad_norm=None)
        before.add_time(wait_seconds=0.0, seconds=1.0)
    window = Window.from_state(before.state_dict(), rank=0)
    window.add(step, grad_norm=None)
    window.add_time(wait_seconds=0.0, seconds=1.0)
    assert window.clips == 20 * 64
    assert window.clips_per_second == pytest.approx(64)


def test_a_row_counts_the_epochs_that_are_over_whatever_is_in_it(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(toy_recipe(log={"every_steps": 2}), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 0), (3, 1), (4, 1), (6, 2), (8, 2), (9, 3)]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 6, 9]
