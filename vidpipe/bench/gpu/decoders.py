"""The ceilings that decoders set: nvJPEG with and without its hardware, frames and filmstrips, NVDEC; each fed from memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.gpu.batches import Wanted
from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.data import Shards
from vidpipe.bench.gpu.measuring import Device, measure
from vidpipe.bench.gpu.rows import DecoderRow, Rate
from vidpipe.loader.reading.filmstrip import join_frames

HARDWARE_SHARES = (0.0, 1.0)  # of the pictures
MAX_CLIPS = 64

Encoded = NDArray[np.uint8]


def measure_decoders(
    shards: Mapping[str, Shards], device: Device, course: Course, wanted: Wanted
) -> Iterator[DecoderRow]:
    """Clips per second of each decoder of DALI that the device has."""
    rows: dict[str, Callable[[], Rate]] = {}
    if "jpeg" in shards:
        for layout in ("frames", "filmstrips"):
            for share in HARDWARE_SHARES if device.on_gpu else (0.0,):
                what = f"nvJPEG, {share:.0%} by its hardware" if device.on_gpu else "libjpeg-turbo"
                strips = layout == "filmstrips"
                rows[f"{layout}: {what}"] = partial(
                    _jpeg, shards["jpeg"].folder, device, wanted, strips=strips, hardware=share
                )
    if "mp4" in shards:
        name = "mp4: NVDEC" if device.on_gpu else "mp4: DALI on the CPU"
        rows[name] = partial(_mp4, shards["mp4"].folder, device, wanted)
    for name, row in rows.items():
        rate = course.row(name, row)
        if rate is not None:
            yield DecoderRow(name, rate)


def _frames(stored: StoredClips) -> list[list[Encoded]]:
    """The files of some clips, as they are stored: of each the wanted frames."""
    payloads = ((stored.payload(clip), stored.window(clip)) for clip in stored.clips[:MAX_CLIPS])
    return [[np.frombuffer(files[frame], np.uint8) for frame in window] for files, window in payloads]


def _filmstrips(stored: StoredClips) -> list[list[Encoded]]:
    """The same files, joined to tall ones, as the loader does it."""
    return [
        [
            np.frombuffer(strip.content, np.uint8)
            for strip in join_frames([file.data for file in frames], lines=clip.height)
        ]
        for clip, frames in zip(stored.clips, _frames(stored), strict=False)
    ]


def _jpeg(folder: Path, device: Device, wanted: Wanted, *, strips: bool, hardware: float) -> Rate:
    from nvidia.dali import fn, pipeline_def, types

    stored = StoredClips(folder, frames=wanted.frames)
    clips = _filmstrips(stored) if strips else _frames(stored)
    files = len(clips[0])

    @pipeline_def  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
        if device.on_gpu:
            return fn.decoders.image(
                encoded, device="mixed", output_type=types.RGB, jpeg_fancy_upsampling=True, hw_decoder_load=hardware
            )
        return fn.decoders.image(encoded, output_type=types.RGB)

    built = _build(pipeline, device, batch_size=wanted.batch_size * files, threads=wanted.workers)

    def feed(batch: list[list[Any]]) -> None:
        built.feed_input("encoded", [file for clip in batch for file in clip])

    return _rate(built, feed, clips, device, wanted)


def _mp4(folder: Path, device: Device, wanted: Wanted) -> Rate:
    from nvidia.dali import fn, pipeline_def

    stored = StoredClips(folder, frames=wanted.frames)
    clips = [
        [np.frombuffer(stored.payload(clip)[0], np.uint8), np.array(stored.window(clip), np.int32)]
        for clip in stored.clips[:MAX_CLIPS]
    ]

    @pipeline_def  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
        numbers = fn.external_source(name="frames", batch=True, no_copy=True)
        return fn.decoders.video(encoded, device="mixed" if device.on_gpu else "cpu", frames=numbers)

    built = _build(pipeline, device, batch_size=wanted.batch_size, threads=wanted.workers)

    def feed(batch: list[list[Any]]) -> None:
        built.feed_input("encoded", [encoded for encoded, _ in batch])
        built.feed_input("frames", [frames for _, frames in batch])

    return _rate(built, feed, clips, device, wanted)


def _rate(
    built: Any, feed: Callable[[list[list[Any]]], None], clips: Sequence[list[Any]], device: Device, wanted: Wanted
) -> Rate:
    """Of a pipeline that always has a batch to go on with while the one before is taken."""
    batches = _cycle(clips, wanted.batch_size)
    feed(next(batches))

    def work() -> int:
        batch = next(batches)
        feed(batch)
        built.run()
        return len(batch)

    return measure(work, device, seconds=wanted.seconds)


def _build(pipeline: Any, device: Device, *, batch_size: int, threads: int) -> Any:
    built = pipeline(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device.torch.index if device.on_gpu else None,
        prefetch_queue_depth=2,
        exec_dynamic=True,
    )
    built.build()
    return built


def _cycle(clips: Sequence[list[Any]], batch_size: int) -> Iterator[list[list[Any]]]:
    place = 0
    while True:
        yield [clips[(place + number) % len(clips)] for number in range(batch_size)]
        place += batch_size
