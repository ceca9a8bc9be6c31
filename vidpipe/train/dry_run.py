"""A run of one batch: does all fit together, how much memory does it take, and where does the time go."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from vidpipe.loader import Batch
from vidpipe.train.data import open_train_loader, preprocessing_of, steps_per_epoch
from vidpipe.train.device import Device, make_fabric, peak_memory_bytes
from vidpipe.train.features import start_from_features
from vidpipe.train.memory import memory_advice, step_advice
from vidpipe.train.optim import run_length
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.setup import build_learner, build_model
from vidpipe.train.step import Learner, seed_step

T = TypeVar("T")


@dataclass(frozen=True)
class DryRun:
    """What one step took.

    Attributes:
        video: shape of the batch, [B, C, T, H, W].
        steps_per_epoch, total_steps: of the run that the recipe describes, at this batch size.
        parameters, trained_parameters: of the model.
        loss: of the step.
        first_batch_seconds: until the first batch was there.
        batch_seconds, mixing_seconds, forward_seconds, backward_seconds, optimizer_seconds: of the second step, once
            all is warm.
        memory_bytes: most memory so far: of the GPU's tensors, or of this process without a GPU.
        notes: what a real run would do otherwise.
    """

    model: str
    device: str
    precision: str
    backend: str
    video: tuple[int, ...]
    classes: int
    clips: int
    steps_per_epoch: int
    total_steps: int
    parameters: int
    trained_parameters: int
    loss: float
    first_batch_seconds: float
    batch_seconds: float
    mixing_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    memory_bytes: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A short report for people."""
        shape = " x ".join(str(n) for n in self.video)
        times = {
            "data": self.batch_seconds,
            "mixing": self.mixing_seconds,
            "forward": self.forward_seconds,
            "backward": self.backward_seconds,
            "optimizer": self.optimizer_seconds,
        }
        total = sum(times.values())
        shown = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in times.items())
        return [
            f"model      {self.model}: {self.parameters:,} parameters, {self.trained_parameters:,} of them trained",
            f"clips      {self.clips:,} in {self.classes} classes; batch {shape} by the {self.backend} backend",
            f"run        {self.steps_per_epoch:,} steps an epoch, {self.total_steps:,} in all",
            f"device     {self.device}, {self.precision}, {self.memory_bytes / 2**20:,.0f} MiB at most",
            f"step       {shown}: {self.video[0] / total if total else 0:.1f} clips/s; first batch after "
            f"{self.first_batch_seconds:.2f} s",
            f"loss       {self.loss:.4f}",
            *(f"note       {note}" for note in self.notes),
        ]


def dry_run(recipe: TrainRecipe, *, shards: Path, batch_size: int | None = 1, device: Device = "auto") -> DryRun:
    """Take two steps of a recipe on real data, the first to warm up, and report on the second.

    Published weights are not read: the model starts from random ones.

    Args:
        batch_size: clips of the batch; None is the recipe's.

    Raises:
        UsageError, ShardError, ModelError: as `train` would.
    """
    notes = []
    if batch_size is not None and batch_size != recipe.data.batch_size:
        notes.append(f"batch size {batch_size} here, {recipe.data.batch_size} in the recipe")
        data = recipe.data.model_copy(update={"batch_size": batch_size, "drop_last": False})
        optim = recipe.optim.model_copy(update={"accumulate": 1})
        recipe = recipe.model_copy(update={"data": data, "optim": optim})
    if recipe.model.init_sources:
        notes.append(f"random weights instead of {', '.join(recipe.model.init_sources)}")
    if recipe.distill is not None and not Path(recipe.distill.teacher).exists():
        notes.append(f"without the teacher {recipe.distill.teacher}, which is not there")
        recipe = recipe.model_copy(update={"distill": None})
    fabric = make_fabric(device=device, precision=recipe.precision)
    with open_train_loader(
        shards,
        recipe.data,
        accumulate=recipe.optim.accumulate,
        device=str(fabric.device),
        seed=recipe.seed,
    ) as loader:
        preprocessing = preprocessing_of(loader.manifest, recipe.data)
        built = build_model(recipe.model, preprocessing, seed=recipe.seed, load_init=False)
        start_from_features(recipe, built.module, loader.manifest, shards=shards)
        per_epoch = steps_per_epoch(loader, accumulate=recipe.optim.accumulate, drop_last=recipe.data.drop_last)
        length = run_length(recipe.schedule, steps_per_epoch=per_epoch)
        learner = build_learner(fabric, recipe, built.module, length=length, preprocessing=preprocessing)
        parameters = list(built.module.parameters())
        batches = iter(loader)
        batch, first_batch_seconds = _timed(fabric.device, lambda: next(batches))
        with memory_advice(f"a step of {len(batch)} clips", fabric.device, step_advice(recipe, world_size=1)):
            _measured_step(learner, batch, step=0)
            batch, batch_seconds = _timed(fabric.device, lambda: next(batches, batch))
            times = _measured_step(learner, batch, step=1)
        return DryRun(
            model=recipe.model.name,
            device=str(fabric.device),
            precision=recipe.precision,
            backend=loader.backend,
            video=tuple(batch.video.shape),
            first_batch_seconds=first_batch_seconds,
            batch_seconds=batch_seconds,
            classes=len(preprocessing.classes),
            clips=loader.num_samples,
            steps_per_epoch=length.per_epoch,
            total_steps=length.total,
            parameters=sum(p.numel() for p in parameters),
            trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            memory_bytes=peak_memory_bytes(fabric.device) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            notes=tuple(notes),
            **asdict(times),
        )


@dataclass(frozen=True)
class _Step:
    """The part of a `DryRun` that one step gives."""

    loss: float
    mixing_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float


def _measured_step(learner: Learner, batch: Batch, *, step: int) -> _Step:
    recipe, device = learner.recipe, learner.fabric.device
    seed_step(recipe.seed, step=step, rank=0)
    learner.model.train()
    shown, mixing_seconds = _timed(device, lambda: learner.show(batch, epoch=0))
    (output, mask), forward_seconds = _timed(device, lambda: learner.objective.output(learner.model, shown))
    loss = learner.objective.loss(output, mask, shown)
    _, backward_seconds = _timed(device, lambda: learner.fabric.backward(loss))
    _, clip_seconds = _timed(device, learner.clip_gradients)
    _, update_seconds = _timed(device, lambda: learner.apply_gradients(step=step))
    optimizer_seconds = clip_seconds + update_seconds
    return _Step(float(loss.detach()), mixing_seconds, forward_seconds, backward_seconds, optimizer_seconds)


def _timed(device: torch.device, work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the seconds until the device has done it."""
    start = time.perf_counter()
    value = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return value, time.perf_counter() - start
