"""Training steps on the device: on a batch that stays there, which is what it can take, and on the loader's batches."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from vidpipe.bench.gpu.batches import EPOCH_CLIPS, Wanted
from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.data import Shards
from vidpipe.bench.gpu.measuring import Device, measure
from vidpipe.bench.gpu.rows import ModelRow, Rate
from vidpipe.bench.loader.arms.vidpipe_loader import long_epoch
from vidpipe.bench.train_step import TrainStep
from vidpipe.errors import UsageError
from vidpipe.loader import Batch, Loader
from vidpipe.loader.sampling.window import frame_window
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.shards.manifest import Manifest
from vidpipe.train.data import loader_options
from vidpipe.train.meter import Clock

CODECS = ("tensor", "jpeg")  # that models are fed from, end to end
QUEUED_STEPS = 5  # of which the median time to queue one is taken


@dataclass(frozen=True, slots=True)
class _Model:
    """A train recipe.

    Attributes:
        frames, stride: of its clips, in native source frames, where the shards hold such; else as stored.
        size: side of its input.
        batch_scale: times the benchmark's batch.
        narrow: overrides that make it small enough for a rehearsal.
    """

    recipe: str
    frames: int
    stride: int
    size: int
    batch_scale: int
    narrow: tuple[str, ...]


_NARROW = ("model.width=48", "model.num_heads=3", "data.size=64")
_NARROW_DECODER = ("model.decoder_width=24", "model.decoder_heads=3", "model.decoder_depth=1")
MODELS = (
    _Model("vivit", 32, 2, 224, 1, (*_NARROW, "model.spatial_depth=1", "model.temporal_depth=1")),
    _Model("timesformer", 8, 8, 224, 2, (*_NARROW, "model.depth=1")),
    _Model("videomae", 16, 4, 224, 1, (*_NARROW, "model.depth=1")),
    _Model("videomae-pretrain", 16, 4, 224, 2, (*_NARROW, "model.depth=1", *_NARROW_DECODER)),
    _Model("r2plus1d", 16, 2, 112, 2, ("model.width=8", "model.layers=[1,1,1,1]", "data.size=32")),
)


def measure_models(
    shards: Mapping[str, Shards], device: Device, course: Course, wanted: Wanted, *, narrow: bool
) -> Iterator[ModelRow]:
    """Each model, fed from each of `CODECS`.

    Args:
        narrow: of a few narrow blocks, for a rehearsal.
    """
    feeds = [shards[codec] for codec in CODECS if codec in shards]
    for model in MODELS if feeds else ():
        work = partial(_measured, model, feeds, device, wanted, narrow=narrow)
        yield from course.row(f"training: {model.recipe}", work) or ()


def _measured(
    model: _Model, feeds: Sequence[Shards], device: Device, wanted: Wanted, *, narrow: bool
) -> tuple[ModelRow, ...]:
    """A row for each of the shards; with half the clips a batch, and again half, where the device's memory demands it."""
    batch_size = model.batch_scale * wanted.batch_size
    while True:
        try:
            return tuple(_rows(model, feeds, device, wanted, batch_size=batch_size, narrow=narrow))
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
        batch_size //= 2  # not while the error is being handled, which holds on to what was in memory


def _rows(
    model: _Model, feeds: Sequence[Shards], device: Device, wanted: Wanted, *, batch_size: int, narrow: bool
) -> Iterator[ModelRow]:
    manifest = feeds[0].manifest
    frames, stride = _geometry(model, manifest)
    overrides = [f"data.frames={frames}", f"data.stride={stride}", f"data.size={model.size}"]
    overrides += [*(model.narrow if narrow else ()), "data.epoch_unit=clip", f"data.readers={wanted.readers}"]
    overrides += [f"data.threads={wanted.threads}"] if wanted.threads else []
    if wanted.readers == "processes" and not device.on_gpu:
        overrides += ["data.backend=dali"]  # the only one for which they read there
    device.clear()
    step = TrainStep(
        model.recipe,
        overrides,
        manifest,
        device="cuda" if device.on_gpu else "cpu",
        batch_size=batch_size,
    )
    section = step.recipe.data
    alone: tuple[Rate, float] | None = None
    for shards in feeds:
        with Loader(
            long_epoch(shards.folder, clips=EPOCH_CLIPS),
            batch_size=batch_size,
            frames=section.frames,
            stride=section.stride,
            size=section.size,
            augment=section.augment,
            device=device.torch,
            backend=section.backend,
            options=loader_options(section),
            rank=0,
            world_size=1,
        ) as loader:
            batches = _endless(loader)
            alone = alone or _alone(step, next(batches), device, seconds=wanted.seconds)
            end_to_end, wait_share = _end_to_end(step, batches, device, seconds=wanted.seconds)
            queued_fed = _seconds_to_queue(step, batches, device)
        cached, queued_alone = alone
        yield ModelRow(
            model=f"{model.recipe} (narrow)" if narrow else model.recipe,
            clip=f"{frames} frames{'' if stride is None else f' x {stride}'}, {section.size} pixels",
            codec=shards.codec,
            batch_size=batch_size,
            parameters=step.parameters,
            cached=cached,
            end_to_end=end_to_end,
            wait_share=wait_share,
            queued_alone=queued_alone,
            queued_fed=queued_fed,
            gpu_bytes=device.tensor_bytes(),
        )


def _geometry(model: _Model, manifest: Manifest) -> tuple[int, int | str]:
    """The model's own clips where they are stored; else as many frames as there are, at the stored stride (`null`)."""
    whole = stores_whole_videos(manifest.codec)
    try:
        frame_window(manifest.clip, whole_videos=whole, frames=model.frames, stride=model.stride, window="random")
    except UsageError:
        return min(model.frames, manifest.clip.frames), "null"
    return model.frames, model.stride


def _endless(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader


def _alone(step: TrainStep, batch: Batch, device: Device, *, seconds: float) -> tuple[Rate, float]:
    """On one batch again and again, while the loader has nothing to do; also how long the host takes to queue a step."""

    def work() -> int:
        step(batch)
        return len(batch)

    work()  # what is made once: the optimiser's state, and the choice of kernels
    return measure(work, device, seconds=seconds), _seconds_to_queue(step, itertools.repeat(batch), device)


def _end_to_end(step: TrainStep, batches: Iterator[Batch], device: Device, *, seconds: float) -> tuple[Rate, float]:
    clock = Clock()

    def work() -> int:
        with clock:
            batch = next(batches)
        step(batch)
        return len(batch)

    work()
    rate = measure(work, device, seconds=seconds, warm=clock.skip)
    wait_seconds, _ = clock.lap()
    return rate, wait_seconds / rate.seconds


def _seconds_to_queue(step: TrainStep, batches: Iterator[Batch], device: Device) -> float:
    """What the host takes for a step where it need not wait for the device: the device had nothing left to do."""
    seconds = []
    for batch in itertools.islice(batches, QUEUED_STEPS):
        device.wait()
        begin = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - begin)
    device.wait()
    return statistics.median(seconds)
