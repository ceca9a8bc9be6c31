"""Runs an arm of the prep benchmark in a process of its own, from its start to its end: seconds, CPU time, memory."""

from __future__ import annotations

import pkgutil
import resource
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from vidpipe.bench.guard import Guard
from vidpipe.bench.prep.arms.base import Done, PrepArm, PrepArmSetup
from vidpipe.bench.process import GroupProcess, answer
from vidpipe.bench.usage import group_usage
from vidpipe.errors import VidpipeError

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Memory:
    """The most that an arm's processes held at any sample, without mapped files. What lives shorter than a sample may be missed.

    Attributes:
        bytes: all together.
        bytes_per_worker: all but what the first process has for itself alone, divided by the workers.
    """

    bytes: int
    bytes_per_worker: int


@dataclass(frozen=True, slots=True)
class PrepRun:
    """One run of an arm.

    Attributes:
        seconds: from the start of its process to its end; nothing is left out.
        first_seconds: of that, until its first video was done.
        cpu_seconds: of all its processes.
        done: its videos.
        memory: if it was watched, and the system tells.
    """

    seconds: float
    first_seconds: float
    cpu_seconds: float
    done: tuple[Done, ...]
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What an arm's process sends at its end; `first` is time.monotonic() of its first video."""

    done: tuple[Done, ...]
    first: float | None
    cpu_seconds: float


def run_arm(name: str, target: str, setup: PrepArmSetup, *, guard: Guard, watch: bool = False) -> PrepRun:
    """Run an arm once.

    Args:
        name: of the arm, for messages.
        target: its class, "module:Class".
        guard: ends it when nobody else does.
        watch: sample its memory, which costs some of the time.

    Raises:
        VidpipeError: it failed or did nothing.
    """
    begin = time.monotonic()
    with ExitStack() as stack:
        process = stack.enter_context(GroupProcess(name, answer, _run, name, target, setup, guard=guard, start="spawn"))
        watcher = stack.enter_context(_Watcher(process.group)) if watch else None
        found: _Found = process.receive()
        process.join()
        seconds = time.monotonic() - begin
    if found.first is None:
        raise VidpipeError(f"{name}: it ended without having done any video")
    memory = watcher.memory(setup.workers) if watcher else None
    return PrepRun(seconds, found.first - begin, found.cpu_seconds, found.done, memory)


def _run(name: str, target: str, setup: PrepArmSetup) -> _Found:
    done: list[Done] = []
    first: list[float] = []

    def report(video: Done) -> None:
        if not first:
            first.append(time.monotonic())
        done.append(video)

    kind: type[PrepArm] = pkgutil.resolve_name(target)
    try:
        kind(setup).run(report)
    except VidpipeError as error:
        raise VidpipeError(f"{name}: {error}") from error
    return _Found(tuple(done), first[0] if first else None, _cpu_seconds())


def _cpu_seconds() -> float:
    """Of this process and of all its descendants that have ended and been waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class _Watcher:
    """Samples the memory of a process group in a thread; a context manager, which ends that."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._peak = self._workers_peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def memory(self, workers: int) -> Memory | None:
        """The peak."""
        return Memory(self._peak, self._workers_peak // workers) if self._peak else None

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            usage = group_usage(self._group)
            if usage.memory_bytes is not None:
                self._peak = max(self._peak, usage.memory_bytes)
                self._workers_peak = max(self._workers_peak, usage.memory_bytes - usage.leader_bytes)
