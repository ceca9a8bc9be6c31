"""`vidpipe bench gpu`: all parts, one after the other, within the time that there is."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.gpu.batches import Wanted, measure_loader, measure_on_the_fly, measure_video_reader
from vidpipe.bench.gpu.copies import measure_copies
from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.data import Shards, find_or_make_shards
from vidpipe.bench.gpu.decoders import measure_decoders
from vidpipe.bench.gpu.measuring import Device
from vidpipe.bench.gpu.models import measure_models
from vidpipe.bench.gpu.options import GpuBenchmark
from vidpipe.bench.gpu.report import GpuReport
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.running import Progress, to_stderr
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.train.device import pick_device


def run_gpu_benchmark(options: GpuBenchmark, *, progress: Progress = to_stderr) -> GpuReport:
    """Measure, and write the JSON and the plot. A row that fails is left out with its reason.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        UsageError: there is no GPU, or no shards where they should be.
        ShardError: the shards are unfinished or damaged.
    """
    begin, machine = time.monotonic(), describe_machine()
    name = pick_device(options.device)
    if name == "cpu" and options.device != "cpu":
        raise UsageError("bench gpu: torch finds no CUDA device here; --device cpu --quick rehearses without one")
    workers = options.workers or usable_cores()
    with (
        Course(deadline=begin + 60 * options.minutes, progress=progress) as course,
        tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary,
    ):
        progress("finding or making shards")
        shards = find_or_make_shards(options, Path(temporary))
        first = next(iter(shards.values()))
        stored = StoredClips(first.folder, frames=min(options.frames, first.manifest.clip.frames))
        clip_bytes = stored.num_bytes(stored.clips[0])
        device = Device(name)
        readers = options.readers
        if readers == "auto":
            readers = "processes" if device.on_gpu else "threads"
        wanted = Wanted(
            frames=stored.num_frames,
            size=options.size,
            batch_size=options.clips_per_batch,
            workers=workers,
            threads=options.workers,
            readers=readers,
            seconds=options.measured_seconds,
            scratch=Path(temporary),
        )
        narrow = name == "cpu" and options.quick
        # In the order of what is to be known first, should the time be over before the end.
        whole = {codec: one for codec, one in shards.items() if stores_whole_videos(one.manifest.codec)}
        clips = {codec: one for codec, one in shards.items() if codec not in whole}
        batches = [*measure_loader(clips, device, course, wanted), *measure_on_the_fly(shards, device, course, wanted)]
        copies = tuple(measure_copies(device, course, wanted, clip_bytes=clip_bytes))
        models = tuple(measure_models(shards, device, course, wanted, narrow=narrow))
        decoders = tuple(measure_decoders(shards, device, course, wanted))
        batches += measure_loader(whole, device, course, wanted)
        batches += measure_video_reader(shards, device, course, wanted)
        report = GpuReport(
            quick=options.quick,
            device=name,
            machine=machine,
            versions={**package_versions(), "CUDA of torch": torch.version.cuda or "none"},
            shards=tuple(_describe(one) for one in shards.values()),
            frames=wanted.frames,
            size=options.size,
            clip_bytes=clip_bytes,
            batch_size=wanted.batch_size,
            workers=workers,
            readers=readers,
            seconds=wanted.seconds,
            copies=copies,
            batches=tuple(batches),
            models=models,
            decoders=decoders,
            left_out=tuple(course.left_out),
            minutes=(time.monotonic() - begin) / 60,
        )
    return report.written(options.out, "gpu")


def _describe(shards: Shards) -> str:
    manifest = shards.manifest
    megabytes = sum(entry.bytes for entry in manifest.shards) / 1e6
    what = f"{manifest.num_samples} samples of {manifest.dataset}/{manifest.split}, {megabytes:,.0f} MB"
    return f"codec {shards.codec}: {what}, {manifest.clip.frames} frames x {manifest.clip.stride} by default"
