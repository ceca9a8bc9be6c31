"""Rates on a device: time, CPU time, and memory, of work that may still be under way there when a call returns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor

from vidpipe.bench.gpu.rows import Rate
from vidpipe.bench.usage import group_cpu_seconds, group_usage

PROFILED_BATCHES = 12  # what is made ahead of the first, and not of the last, is a small part of them


class Device:
    """The device, and what of its memory was in use before.

    Args:
        name: `cpu` or `cuda`.
    """

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name, 0) if name == "cuda" else torch.device(name)
        self.on_gpu = name == "cuda"
        self._before = 0

    def wait(self) -> None:
        """Until all that was queued is done."""
        if self.on_gpu:
            torch.cuda.synchronize(self.torch)

    def clear(self) -> None:
        """Give back what torch and DALI keep, and begin to count memory anew."""
        if self.on_gpu:
            torch.cuda.init()  # type: ignore[no-untyped-call]  # or in a new process there is nothing yet whose statistics could be reset
            torch.cuda.empty_cache()
            if "nvidia.dali" in sys.modules:
                sys.modules["nvidia.dali"].backend.ReleaseUnusedMemory()
            torch.cuda.reset_peak_memory_stats(self.torch)
            self._before = self._used()

    def bytes_in_use(self) -> int | None:
        """Of all libraries, since `clear`; None without a GPU."""
        return max(0, self._used() - self._before) if self.on_gpu else None

    def tensor_bytes(self) -> int | None:
        """Most that torch's tensors took since `clear`; None without a GPU."""
        return torch.cuda.max_memory_allocated(self.torch) if self.on_gpu else None

    def pinned_bytes(self) -> int | None:
        """Most page-locked memory of torch's since the process began, in its powers of two; None without a GPU."""
        return int(torch.cuda.host_memory_stats()["allocated_bytes.peak"]) if self.on_gpu else None

    def _used(self) -> int:
        free, total = torch.cuda.mem_get_info(self.torch)
        return total - free


def measure(
    work: Callable[[], int], device: Device, *, seconds: float, warm: Callable[[], None] = lambda: None
) -> Rate:
    """Do something again and again for at least so long, after one time to warm up.

    Args:
        work: gives the number of clips that it has done, or has queued on the device.
        warm: is called when the time begins to count.
    """
    work()
    device.wait()
    clips, used, cpu = 0, device.bytes_in_use(), cpu_seconds()
    warm()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or not clips:
        clips += work()
    device.wait()
    elapsed, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    used = None if used is None else max(used, device.bytes_in_use() or 0)
    return Rate(clips, elapsed, cpu, used)


def cpu_seconds() -> float:
    """Of this process's group."""
    return group_cpu_seconds(os.getpgrp())


def host_bytes() -> int | None:
    """Memory of this process's group, without mapped files; None where the system doesn't tell."""
    return group_usage(os.getpgrp()).memory_bytes


def profiled_gpu_seconds(batches: Iterator[Tensor], device: Device) -> float | None:
    """Seconds of all kernels and copies for a clip, of whatever library; None without a GPU or a profiler."""
    if not device.on_gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    with suppress(RuntimeError):
        clips = 0
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED_BATCHES):
                clips += len(next(batches))
            device.wait()
        events = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
        return sum(event.self_device_time_total for event in events) / 1e6 / clips or None
    return None
