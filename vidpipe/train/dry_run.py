"""A run of one batch: does all fit together, how much memory does it take, and where does the time go."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import torch

from vidpipe.loader import Batch
from vidpipe.loader.reading.splits import Shards
from vidpipe.train.data import ClipLoader, open_train_loader, other_splits, preprocessing_of
from vidpipe.train.device import Device, gathered, make_fabric, peak_memory_bytes, resolve_precision
from vidpipe.train.features import start_from_features
from vidpipe.train.memory import memory_advice, step_advice
from vidpipe.train.optim import run_length
from vidpipe.train.parts import check_parts
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.setup import build_learner, build_model, check_labels
from vidpipe.train.step import Learner, seed_step
from vidpipe.train.trial import trial_of

T = TypeVar("T")
_LOADED_BATCHES = 8  # several, since the loader works ahead: a single one may have been ready before it was asked for
_SLOW_STEP_SECONDS = 5.0  # on the CPU: a second one would tell little that the first doesn't


@dataclass(frozen=True)
class StepTimes:
    """What one step took; its `loss_seconds` include what a teacher says."""

    loss: float
    mixing_seconds: float
    forward_seconds: float
    loss_seconds: float
    backward_seconds: float
    optimizer_seconds: float

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part."""
        names = ("mixing", "forward", "loss", "backward", "optimizer")
        return {name: getattr(self, f"{name}_seconds") for name in names}

    @property
    def step_seconds(self) -> float:
        """Of the whole step, on a batch that is there."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class DryRun(StepTimes):
    """What one step took, once all is warm if it is the second; on the first process where there are several.

    Attributes:
        processes: that take a step together.
        video: shape of what goes through the model at a time, [B, C, T, H, W].
        steps_per_epoch, total_steps: of the run that the recipe describes.
        parameters, trained_parameters: of the model.
        steps: that were taken, 2, or 1 where the first was slow.
        first_batch_seconds: until the first batch was there.
        batch_seconds: of the loader alone for each of the next batches, while nothing else goes on.
        memory_bytes: most memory so far: of the GPU's tensors, or of this process without a GPU.
        notes: what a real run would do otherwise.
    """

    model: str
    device: str
    processes: int
    precision: str
    backend: str
    video: tuple[int, ...]
    classes: int
    clips: int
    steps_per_epoch: int
    total_steps: int
    parameters: int
    trained_parameters: int
    steps: int
    first_batch_seconds: float
    batch_seconds: float
    memory_bytes: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A short report for people."""
        shape = " x ".join(str(n) for n in self.video)
        clips = self.video[0] * self.processes
        shown = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in self.parts.items())
        return [
            f"model      {self.model}: {self.parameters:,} parameters, {self.trained_parameters:,} of them trained",
            f"clips      {self.clips:,} in {self.classes} classes; batch {shape} by the {self.backend} backend",
            f"run        {self.steps_per_epoch:,} steps an epoch, {self.total_steps:,} in all",
            f"device     {self.device}, {self.precision}, {self.processes} process(es), "
            f"{self.memory_bytes / 2**20:,.0f} MiB at most",
            f"loader     {self.batch_seconds * 1000:.1f} ms a batch: {_rate(clips, self.batch_seconds)} clips/s by itself; "
            f"first batch after {self.first_batch_seconds:.2f} s",
            f"step       {shown}: {_rate(clips, self.step_seconds)} clips/s",
            f"loss       {self.loss:.4f}",
            *(f"note       {note}" for note in self.notes),
        ]


def _rate(clips: int, seconds: float) -> str:
    return f"{clips / seconds if seconds else 0:.1f}"


def dry_run(recipe: TrainRecipe, *, shards: Shards, batch_size: int | None = None, device: Device = "auto") -> DryRun:
    """Take two steps of a recipe on real data, the first to warm up, and report on the second.

    Published weights are not read: the model starts from random ones. Processes that torchrun started do it together. On the
    CPU a slow first step is the only one.

    Args:
        batch_size: clips of the batch, over all processes; None takes one on each, without what needs several: mixing, and
            several clips of a sample.

    Raises:
        UsageError, ShardError, ModelError, TrainingError: as `train` would.
    """
    recipe = recipe.model_copy(update={"precision": resolve_precision(recipe.precision, device)})
    fabric = make_fabric(device=device, precision=recipe.precision, strategy=recipe.strategy)
    world_size = fabric.world_size
    check_parts(recipe, world_size=world_size)
    trial, notes = trial_of(recipe, batch_size, world_size=world_size)
    notes += other_splits(shards)
    check_parts(trial, world_size=world_size)
    advice = step_advice(trial, world_size=world_size)
    with (
        memory_advice(f"a step of {trial.data.batch_size} clips", fabric.device, advice),
        open_train_loader(
            shards,
            trial.data,
            accumulate=trial.optim.accumulate,
            device=str(fabric.device),
            seed=trial.seed,
            rank=fabric.global_rank,
            world_size=world_size,
        ) as loader,
    ):
        preprocessing = preprocessing_of(loader.manifest, trial.data)
        built = build_model(trial.model, preprocessing, seed=trial.seed, load_init=False)
        start_from_features(trial, built.module, loader.manifest, shards=shards)
        per_epoch = _steps_per_epoch(recipe, loader.num_samples)
        if per_epoch == 0:
            notes.append(
                f"{loader.num_samples} training clips don't fill one batch of {recipe.data.batch_size}, which `train` would "
                "refuse: take a smaller --batch-size, or data.drop_last=false"
            )
        length = run_length(recipe.schedule, steps_per_epoch=max(1, per_epoch))
        sizes = [(p.numel(), p.requires_grad) for p in built.module.parameters()]
        learner = build_learner(fabric, trial, built.module, length=length, preprocessing=preprocessing)
        check_labels(learner, loader.manifest, shards=shards)
        loading = _measured_loading(loader, fabric.device)
        steps, times = _measured_steps(learner, loading)
        if steps == 1:
            notes.append(
                f"the first step took {times.step_seconds:.1f} s: it was the only one, so its times are those of a cold start"
            )
        return DryRun(
            model=trial.model.name,
            device=str(fabric.device),
            processes=world_size,
            precision=trial.precision,
            backend=loader.backend,
            video=tuple(loading.last.video.shape),
            first_batch_seconds=loading.first_seconds,
            batch_seconds=loading.batch_seconds,
            classes=len(preprocessing.classes),
            clips=loader.num_samples,
            steps_per_epoch=length.per_epoch,
            total_steps=length.total,
            parameters=sum(size for size, _ in sizes),
            trained_parameters=sum(size for size, trained in sizes if trained),
            steps=steps,
            memory_bytes=peak_memory_bytes(fabric.device) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            notes=tuple(notes),
            **asdict(times),
        )


def _steps_per_epoch(recipe: TrainRecipe, num_samples: int) -> int:
    """Optimiser steps that the recipe takes in an epoch of so many samples."""
    samples = recipe.data.batch_size // recipe.data.clips_per_sample
    return num_samples // samples if recipe.data.drop_last else -(-num_samples // samples)


@dataclass(frozen=True)
class _Loading:
    """Two batches, and how long the loader took."""

    first: Batch
    last: Batch
    first_seconds: float
    batch_seconds: float


def _measured_loading(loader: ClipLoader, device: torch.device) -> _Loading:
    batches = _endless(loader)
    first, first_seconds = _timed(device, lambda: next(batches))
    last, seconds = _timed(device, lambda: deque(islice(batches, _LOADED_BATCHES), maxlen=1).pop())
    return _Loading(first, last, first_seconds, seconds / _LOADED_BATCHES)


def _endless(loader: ClipLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def _measured_steps(learner: Learner, loading: _Loading) -> tuple[int, StepTimes]:
    """How many steps were taken, and the last of them; all processes take as many."""
    first = _measured_step(learner, loading.first, step=0)
    fabric = learner.fabric
    slowest = max(gathered(first.step_seconds, fabric.world_size))
    if fabric.device.type == "cpu" and slowest > _SLOW_STEP_SECONDS:
        return 1, first
    return 2, _measured_step(learner, loading.last, step=1)


def _measured_step(learner: Learner, batch: Batch, *, step: int) -> StepTimes:
    recipe, fabric = learner.recipe, learner.fabric
    device = fabric.device
    seed_step(recipe.seed, step=step, rank=fabric.global_rank)
    learner.model.train()
    weight = learner.clip_weight(learner.real(batch).sum())
    shown, mixing_seconds = _timed(device, lambda: learner.show(batch, epoch=0))
    (output, mask), forward_seconds = _timed(device, lambda: learner.objective.output(learner.model, shown))
    loss, loss_seconds = _timed(device, lambda: learner.loss(output, mask, shown, weight=weight))
    _, backward_seconds = _timed(device, lambda: fabric.backward(loss))
    _, clip_seconds = _timed(device, learner.clip_gradients)
    _, update_seconds = _timed(device, lambda: learner.apply_gradients(step=step))
    return StepTimes(
        loss=float(loss.detach()),
        mixing_seconds=mixing_seconds,
        forward_seconds=forward_seconds,
        loss_seconds=loss_seconds,
        backward_seconds=backward_seconds,
        optimizer_seconds=clip_seconds + update_seconds,
    )


def _timed(device: torch.device, work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the seconds until the device has done it."""
    start = time.perf_counter()
    value = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return value, time.perf_counter() - start
