"""What consumes batches in a benchmark: a training step of `vidpipe train`, or a stand-in that sleeps."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from vidpipe.loader import Batch
from vidpipe.shards.manifest import Manifest
from vidpipe.train.data import preprocessing_of
from vidpipe.train.device import Device, make_fabric
from vidpipe.train.optim import run_length
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.setup import build_learner, build_model

STEPS_PER_EPOCH = 1_000  # only the schedule's length depends on it


class Step(ABC):
    """Takes a batch and is done with it, or has queued the work for it on the device, when it returns."""

    title: str

    @abstractmethod
    def __call__(self, batch: Batch) -> None:
        """One step."""

    def wait(self) -> None:  # noqa: B027  most steps are over when they return
        """Until the device has done all that was queued."""


class StandInStep(Step):
    """Sleeps for as long as a GPU would work that takes so many clips a second; the CPU is free meanwhile."""

    def __init__(self, clips_per_second: float) -> None:
        self.title = f"stand-in for a GPU: sleeps at {clips_per_second:g} clips/s"
        self._rate = clips_per_second

    def __call__(self, batch: Batch) -> None:
        """Sleep."""
        time.sleep(len(batch) / self._rate)


class TrainStep(Step):
    """The whole step of a train recipe: mixing, forward, loss, backward, clipping, update; random starting weights.

    Args:
        name: of the recipe.
        overrides: of its keys, as for `vidpipe train --set`.
        manifest: of the shards that the batches come from.

    Raises:
        UsageError, ModelError: as `vidpipe train` would.
    """

    def __init__(
        self, name: str, overrides: Sequence[str], manifest: Manifest, *, device: Device, batch_size: int
    ) -> None:
        recipe = load_train_recipe(name, overrides, batch_size=batch_size)
        fabric = make_fabric(device=device, precision=recipe.precision)
        preprocessing = preprocessing_of(manifest, recipe.data)
        built = build_model(recipe.model, preprocessing, seed=recipe.seed, load_init=False)
        length = run_length(recipe.schedule, steps_per_epoch=STEPS_PER_EPOCH)
        self._learner = build_learner(fabric, recipe, built.module, length=length, preprocessing=preprocessing)
        self._steps = 0
        self.recipe = recipe
        self.device = fabric.device
        self.parameters = sum(parameter.numel() for parameter in built.module.parameters())
        self.title = f"{name} on {self.device.type}"

    def __call__(self, batch: Batch) -> None:
        """One optimiser step."""
        self._learner.take_step([batch], step=self._steps, epoch=0)
        self._steps += 1

    def wait(self) -> None:
        """Synchronise the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def plain_batch(video: Tensor, label: Tensor, names: list[str]) -> Batch:
    """A batch of one clip of each of some videos, none of them padding."""
    none = torch.zeros_like(label)
    return Batch(
        video=video,
        label=label,
        key=names,
        clip_key=names,
        video_path=names,
        is_padding=none.bool(),
        view=none,
        dataset=none,
    )


def cached_step_seconds(step: Step, batch: Batch, *, steps: int) -> float:
    """Mean seconds of a step on a batch that is there already, after one to warm up."""
    step(batch)
    step.wait()
    begin = time.perf_counter()
    for _ in range(steps):
        step(batch)
    step.wait()
    return (time.perf_counter() - begin) / steps
