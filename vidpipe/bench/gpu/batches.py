"""Ready batches on the device: by vidpipe's loader, codec by codec and backend by backend, and from the videos themselves."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.data import Shards
from vidpipe.bench.gpu.measuring import Device, host_bytes, measure, profiled_gpu_seconds
from vidpipe.bench.gpu.rows import BatchRow
from vidpipe.bench.loader.arms.base import RANDOM_CROP, ArmSetup
from vidpipe.bench.loader.arms.vidpipe_loader import long_epoch
from vidpipe.errors import VidpipeError
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.loader.options import Augment, Backend, Decode, Readers
from vidpipe.shards.index import read_samples

# Limits of the difference to the reference on the CPU, in normalised units: an 8-bit level is 0.0175, bfloat16 rounds by 0.008.
MAX_DIFFERENCE = 0.045
MAX_MEAN_DIFFERENCE = 0.008
MAX_MEAN_DIFFERENCE_DECODED = 0.05  # where the GPU decodes: it rounds chroma otherwise, most of all at edges
EDGE_PIXELS = 2
_VIDEO_READER_QUEUE = 2  # batches that its pipeline makes ahead
EPOCH_CLIPS = 4_000  # at least so many, so that the short last batch of an epoch is as rare as in real ones

Batches = Callable[[], AbstractContextManager[Iterator[Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The batches that are wanted.

    Attributes:
        frames, size: of a clip.
        workers: threads or processes of others than the loader.
        threads: of the loader; None has it choose.
        readers: what reads for it.
        seconds: least length of each measurement.
    """

    frames: int
    size: int
    batch_size: int
    workers: int
    threads: int | None
    readers: Readers
    seconds: float
    scratch: Path


def measure_on_the_fly(
    shards: Mapping[str, Shards], device: Device, course: Course, wanted: Wanted
) -> Iterator[BatchRow]:
    """The stored clips from their videos, by decord in as many processes as there are workers."""
    known = [one for one in shards.values() if one.source is not None]
    if known:
        name = f"on the fly: decord + DataLoader, {wanted.workers} workers"
        batches = partial(_decord, known[0], device, wanted)
        yield from _row(name, batches, device, course, wanted, ahead=wanted.workers)


def measure_loader(shards: Mapping[str, Shards], device: Device, course: Course, wanted: Wanted) -> Iterator[BatchRow]:
    """vidpipe's loader, after proof that its clips are those of the reference."""
    for codec, one in shards.items():
        ways: list[tuple[Backend, Decode]] = [("dali", "cpu"), ("torch", "cpu")]
        if codec != "tensor" and device.on_gpu:
            ways.insert(0, ("dali", "gpu"))
        for backend, decode in ways:
            where = "" if codec == "tensor" else f", decoded by the {decode.upper()}"
            yield from _row(
                f"vidpipe, {codec}, {backend}{where}",
                partial(_loaded, one.folder, device, wanted, backend, decode),
                device,
                course,
                wanted,
                ahead=LoaderOptions().prefetch_batches + 1,
                check=partial(_largest_difference, one.folder, device, wanted, backend, decode),
            )


def measure_video_reader(
    shards: Mapping[str, Shards], device: Device, course: Course, wanted: Wanted
) -> Iterator[BatchRow]:
    """DALI's own reader on the videos, decoded by NVDEC."""
    known = [one for one in shards.values() if one.source is not None]
    if known:
        name = "on the fly: DALI fn.readers.video (NVDEC)"
        batches = partial(_video_reader, known[0], device, wanted)
        yield from _row(name, batches, device, course, wanted, ahead=_VIDEO_READER_QUEUE)


def open_loader(
    folder: Path | list[Path],
    device: Device,
    wanted: Wanted,
    backend: Backend,
    *,
    decode: Decode = "auto",
    augment: Augment | None = "train",
    dtype: Any = "bfloat16",
) -> Loader:
    """The loader, for all stored clips."""
    return Loader(
        folder,
        batch_size=wanted.batch_size,
        frames=wanted.frames,
        size=wanted.size,
        augment=augment,
        device=device.torch,
        backend=backend,
        dtype=dtype,
        rank=0,
        world_size=1,
        options=LoaderOptions(epoch_unit="clip", threads=wanted.threads, readers=wanted.readers, decode=decode),
    )


def _row(
    name: str,
    batches: Batches,
    device: Device,
    course: Course,
    wanted: Wanted,
    *,
    ahead: int,
    check: Callable[[], float] | None = None,
) -> Iterator[BatchRow]:
    row = course.row(name, partial(_measured, name, batches, device, wanted, ahead, check))
    if row is not None:
        yield row


def _measured(
    name: str, batches: Batches, device: Device, wanted: Wanted, ahead: int, check: Callable[[], float] | None
) -> BatchRow:
    """A row.

    Args:
        ahead: batches that are begun before they are asked for.
    """
    difference = check() if check else None
    device.clear()
    begin = time.perf_counter()
    with batches() as iterator:
        first = next(iterator)
        device.wait()
        first_seconds = time.perf_counter() - begin
        _check_ready(name, first, device, wanted)
        # As many at a time as are begun together: workers may all end theirs at once, and nothing for long then.
        rate = measure(lambda: sum(len(next(iterator)) for _ in range(ahead)), device, seconds=wanted.seconds)
        host = host_bytes()  # before the profiler takes memory of its own
        gpu_seconds = profiled_gpu_seconds(iterator, device)
    return BatchRow(
        name=name,
        rate=rate,
        gpu_seconds_per_clip=gpu_seconds,
        host_bytes=host,
        pinned_bytes=device.pinned_bytes(),
        first_batch_seconds=first_seconds,
        largest_difference=difference,
    )


def _check_ready(name: str, batch: Tensor, device: Device, wanted: Wanted) -> None:
    shape = [3, wanted.frames, wanted.size, wanted.size]
    if list(batch.shape[1:]) != shape or batch.dtype != torch.bfloat16 or batch.device != device.torch:
        got = f"{batch.dtype} {list(batch.shape)} on {batch.device}"
        raise VidpipeError(f"{name}: got {got}, expected {torch.bfloat16} [B, {str(shape)[1:]} on {device.torch}")


@contextmanager
def _loaded(
    folder: Path, device: Device, wanted: Wanted, backend: Backend, decode: Decode
) -> Iterator[Iterator[Tensor]]:
    with open_loader(long_epoch(folder, clips=EPOCH_CLIPS), device, wanted, backend, decode=decode) as loader:
        yield (batch.video for _ in itertools.count() for batch in loader)


def _largest_difference(folder: Path, device: Device, wanted: Wanted, backend: Backend, decode: Decode) -> float:
    """Between the first centred batch and the reference's, without their outermost pixels.

    Raises:
        VidpipeError: it is too large.
    """
    by_threads = replace(wanted, readers="threads")  # on the CPU, backend torch knows no other way
    with open_loader(folder, Device("cpu"), by_threads, "torch", augment=None, dtype="float32") as reference:
        expected = next(iter(reference))
    with open_loader(folder, device, wanted, backend, decode=decode, augment=None) as loader:
        batch = next(iter(loader))
    difference = (batch.video.float().cpu() - expected.video).abs()
    inner = difference[..., EDGE_PIXELS:-EDGE_PIXELS, EDGE_PIXELS:-EDGE_PIXELS]
    largest, mean = float(inner.max()), float(difference.mean())
    limits = (math.inf, MAX_MEAN_DIFFERENCE_DECODED) if decode == "gpu" else (MAX_DIFFERENCE, MAX_MEAN_DIFFERENCE)
    if batch.key != expected.key or largest > limits[0] or mean > limits[1]:
        raise VidpipeError(
            f"backend {backend} on {device.torch} differs from the reference by {largest:.3f} at most, {mean:.4f} in the mean; "
            f"expected {limits[0]:g} and {limits[1]:g}"
        )
    return largest


@contextmanager
def _decord(shards: Shards, device: Device, wanted: Wanted) -> Iterator[Iterator[Tensor]]:
    from vidpipe.bench.loader.arms.decord_on_the_fly import DecordArm

    setup = ArmSetup(
        folder=shards.folder,
        source=shards.source,
        scratch=wanted.scratch,
        batch_size=wanted.batch_size,
        workers=wanted.workers,
        size=wanted.size,
        crop=RANDOM_CROP,
        frames=wanted.frames,
        device=device.torch.type,
    )
    objection = DecordArm.objection(setup)
    if objection:
        raise VidpipeError(objection)
    batches: Any = DecordArm(setup).batches("train")
    try:
        yield (batch.video.to(device.torch, non_blocking=True).bfloat16() for batch in batches)
    finally:
        batches.close()


@contextmanager
def _video_reader(shards: Shards, device: Device, wanted: Wanted) -> Iterator[Iterator[Tensor]]:
    from nvidia.dali import fn, pipeline_def, types

    assert shards.source is not None
    videos: list[str] = read_samples(shards.folder, ["video"]).column("video").to_pylist()
    names = sorted({str(shards.source / video) for video in videos})
    normalization = shards.manifest.normalization

    @pipeline_def  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        video = fn.readers.video(
            device="gpu" if device.on_gpu else "cpu",
            filenames=names,
            sequence_length=wanted.frames,
            stride=shards.manifest.clip.stride,
            random_shuffle=True,
            initial_fill=2 * wanted.batch_size,
        )
        resized = fn.random_resized_crop(
            video, size=[wanted.size, wanted.size], interp_type=types.INTERP_LINEAR, antialias=True
        )
        return fn.crop_mirror_normalize(
            resized,
            dtype=types.FLOAT,
            output_layout="CFHW",
            mean=[255 * value for value in normalization.mean],
            std=[255 * value for value in normalization.std],
            mirror=fn.random.coin_flip(),
        )

    built = pipeline(
        batch_size=wanted.batch_size,
        num_threads=wanted.workers,
        prefetch_queue_depth=_VIDEO_READER_QUEUE,
        device_id=device.torch.index if device.on_gpu else None,
        exec_dynamic=True,
    )
    built.build()

    def run() -> Tensor:
        (output,) = built.run()
        batch = torch.utils.dlpack.from_dlpack(output.as_tensor()).to(torch.bfloat16)
        if device.on_gpu:
            torch.cuda.current_stream(device.torch).synchronize()  # then DALI uses the output's memory again
        return batch

    yield (run() for _ in itertools.count())
