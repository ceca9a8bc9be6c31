"""The ceilings that copies set: memory to memory, and memory to device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from vidpipe.bench.gpu.batches import Wanted
from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.measuring import Device, measure
from vidpipe.bench.gpu.rows import CopyRow

CLIPS = 32
QUEUED = 8  # copies that are queued before they are waited for; else there would be a thousand to wait for at the end


def measure_copies(device: Device, course: Course, wanted: Wanted, *, clip_bytes: int) -> Iterator[CopyRow]:
    """Host memory to host memory by all threads; page-locked and pageable memory to the device, and back.

    Args:
        clip_bytes: of a clip's stored 8-bit frames.
    """
    total, threads, seconds = CLIPS * clip_bytes, wanted.workers, wanted.seconds
    rows = {f"memcpy on the host, {threads} threads": partial(_host, total, threads, device, seconds)}
    if device.on_gpu:
        copy = partial(_device, total, device, seconds)
        rows |= {
            "page-locked memory to device": partial(copy, pinned=True, back=False),
            "pageable memory to device": partial(copy, pinned=False, back=False),
            "device to page-locked memory": partial(copy, pinned=True, back=True),
        }
    for name, work in rows.items():
        clips_per_second = course.row(name, work)
        if clips_per_second is not None:
            yield CopyRow(name, clips_per_second * clip_bytes / 1e9, clips_per_second)


def _host(total: int, threads: int, device: Device, seconds: float) -> float:
    source, target = np.ones(total, np.uint8), np.zeros(total, np.uint8)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> int:
            list(pool.map(lambda part: np.copyto(*part), parts))
            return CLIPS

        return measure(copy, device, seconds=seconds).clips_per_second


def _device(total: int, device: Device, seconds: float, *, pinned: bool, back: bool) -> float:
    host = torch.ones(total, dtype=torch.uint8, pin_memory=pinned)
    there = torch.zeros(total, dtype=torch.uint8, device=device.torch)
    source, target = (there, host) if back else (host, there)

    def copy() -> int:
        for _ in range(QUEUED):
            target.copy_(source, non_blocking=True)
        device.wait()
        return QUEUED * CLIPS

    return measure(copy, device, seconds=seconds).clips_per_second
