"""Training runs in the test's own process that are stopped and go on, and what runs logged."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from vidpipe.train.loop import train
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.runlog import read_metrics
from vidpipe.train.step import Learner


def raise_signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """The process is sent a signal while it computes a step."""
    original = Learner.take_step

    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        if kwargs["step"] == step:
            signal.raise_signal(number)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "take_step", take_step)


def train_until_stopped(recipe: TrainRecipe, shards: Path, out: Path, *, steps: int = 5) -> None:
    """A run that is told to stop while it computes its last of so many steps."""
    with pytest.MonkeyPatch.context() as patch:
        raise_signal_at(patch, steps - 1, signal.SIGTERM)
        stopped = train(recipe, shards=shards, out=out, device="cpu", quiet=True)
    assert (stopped.steps, stopped.stopped_by, stopped.exit_code) == (steps, "SIGTERM", 0)


def loss_curve(out: Path) -> list[tuple[float, float]]:
    """Step and loss of every logged step."""
    return [(row["step"], row["loss"]) for row in read_metrics(out) if "loss" in row]
