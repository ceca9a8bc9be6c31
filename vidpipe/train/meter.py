"""Sums over the steps since the last log row: loss, accuracy, pace, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vidpipe.train.step_numbers import StepNumbers


@dataclass
class Window:
    """Sums over steps.

    Attributes:
        steps, clips: what was added; damaged samples are no part of it.
        skipped_steps: were left out, for a loss or gradients that are not finite.
        norms: steps whose gradients' norm is known.
        wait_seconds, seconds: for the next batch, and in all.
        untimed: clips of those whose time isn't in `seconds`.
        bad_samples: damaged ones that were found and left out.
    """

    steps: int = 0
    loss: float = 0.0
    clips: int = 0
    labelled: int = 0
    correct: int = 0
    wait_seconds: float = 0.0
    seconds: float = 0.0
    grad_norm: float = 0.0
    norms: int = 0
    skipped_steps: int = 0
    untimed: int = 0
    bad_samples: int = 0

    def add(self, step: StepNumbers, *, grad_norm: float | None) -> None:
        """Add one step.

        Args:
            grad_norm: None where the step's has no meaning.
        """
        self.steps += 1
        self.loss += step.loss
        self.clips += step.clips
        if grad_norm is not None:
            self.norms += 1
            self.grad_norm = max(self.grad_norm, grad_norm)
        if step.correct is not None:
            self.labelled += step.labelled
            self.correct += step.correct

    def add_time(self, *, wait_seconds: float, seconds: float) -> None:
        """Add one step's times; `seconds` includes the wait."""
        self.wait_seconds += wait_seconds
        self.seconds += seconds

    @property
    def is_empty(self) -> bool:
        """Whether there was no step, not even one that was left out."""
        return self.steps == self.skipped_steps == 0

    @property
    def mean_loss(self) -> float | None:
        """Mean over the steps, None if there was none."""
        return self.loss / self.steps if self.steps else None

    @property
    def largest_grad_norm(self) -> float | None:
        """The largest of all steps, None if none is known."""
        return self.grad_norm if self.norms else None

    @property
    def top1(self) -> float | None:
        """Share of the clips that were classified rightly, None if none had a plain label."""
        return self.correct / self.labelled if self.labelled else None

    @property
    def clips_per_second(self) -> float:
        """Clips of all processes together if the window was reduced."""
        return (self.clips - self.untimed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of the time that went into waiting for the next batch."""
        return self.wait_seconds / self.seconds if self.seconds > 0 else 0.0

    def reduced(self, fabric: Fabric) -> Window:
        """The window over all processes: counts are summed, times and losses averaged. Every process must call it."""
        if fabric.world_size == 1:
            return self
        names = [field.name for field in fields(self)]
        own = torch.tensor([float(getattr(self, name)) for name in names], dtype=torch.float64, device=fabric.device)
        total = dict(zip(names, cast(Tensor, fabric.all_reduce(own, reduce_op="sum")).tolist(), strict=True))
        world = fabric.world_size
        return Window(
            steps=round(total["steps"] / world),
            loss=total["loss"] / world,
            clips=round(total["clips"]),
            labelled=round(total["labelled"]),
            correct=round(total["correct"]),
            wait_seconds=total["wait_seconds"] / world,
            seconds=total["seconds"] / world,
            grad_norm=total["grad_norm"] / world,
            norms=round(total["norms"] / world),
            skipped_steps=round(total["skipped_steps"] / world),
            untimed=round(total["untimed"]),
            bad_samples=round(total["bad_samples"]),
        )

    def state_dict(self) -> dict[str, float]:
        """The sums but for the times, which a resumed run measures anew."""
        names = ("steps", "loss", "clips", "labelled", "correct", "grad_norm", "norms", "skipped_steps")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, state: dict[str, float], *, rank: int) -> Window:
        """This process's part of the window over all processes that `state_dict` described: the first one has all clips."""
        counts = {"norms": state["steps"], "skipped_steps": 0, **state}  # which checkpoints once did without
        if rank != 0:
            counts |= dict.fromkeys(("clips", "labelled", "correct"), 0)
        names = ("steps", "clips", "labelled", "correct", "norms", "skipped_steps")
        whole = {name: int(counts[name]) for name in names}
        return cls(loss=state["loss"], grad_norm=state["grad_norm"], untimed=whole["clips"], **whole)


class Clock:
    """Splits time into waiting for data and the rest of a step, as this process sees it.

    On a GPU, which works on while this process waits, the share of waiting is an upper bound of the GPU's idle time.
    """

    def __init__(self) -> None:
        self._mark = time.perf_counter()
        self._wait_seconds = 0.0
        self._wait_from = 0.0

    def __enter__(self) -> Clock:
        self._wait_from = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_seconds += time.perf_counter() - self._wait_from

    def lap(self) -> tuple[float, float]:
        """(seconds waited, seconds in all) since the last lap or pause."""
        now = time.perf_counter()
        wait, seconds = self._wait_seconds, now - self._mark
        self._mark, self._wait_seconds = now, 0.0
        return wait, seconds

    def skip(self) -> None:
        """Leave out what happened since the last lap (evaluation, writing a checkpoint)."""
        self.lap()
