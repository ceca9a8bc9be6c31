"""Runs an arm of the prep benchmark in a process of its own, from its start to its end: seconds, CPU time, memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from vidpipe.bench.guard import Guard
from vidpipe.bench.prep.arms.base import Done, PrepArmSetup, load_arm
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
class _Answer:
    """What an arm's process sends at its end.

    Attributes:
        first: time.monotonic() of its first video.
        error: what went wrong; in a line, and in full where it is no VidpipeError.
    """

    done: tuple[Done, ...] = ()
    first: float | None = None
    cpu_seconds: float = 0.0
    error: tuple[str, str] | None = None


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
    context = multiprocessing.get_context("spawn")
    ours: Connection[None, _Answer]
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix="vidpipe-bench-") as log:
        process = context.Process(target=_serve, args=(theirs, log.name, target, setup), daemon=False)
        begin = time.monotonic()
        process.start()
        theirs.close()
        assert process.pid is not None
        guard.add(process.pid)
        watcher = _Watcher(process.pid) if watch else None
        try:
            answer = _receive(ours)
            process.join()
            seconds = time.monotonic() - begin
        finally:
            if watcher:
                watcher.stop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
            guard.remove(process.pid)
            ours.close()
        if answer is None or answer.error:
            raise _failure(name, answer, process.exitcode, Path(log.name))
    if answer.first is None:
        raise VidpipeError(f"{name}: it ended without having done any video")
    memory = watcher.memory(setup.workers) if watcher else None
    return PrepRun(seconds, answer.first - begin, answer.cpu_seconds, answer.done, memory)


def _receive(pipe: Connection[None, _Answer]) -> _Answer | None:
    with suppress(EOFError, ConnectionResetError):
        return pipe.recv()
    return None


def _failure(name: str, answer: _Answer | None, exit_code: int | None, log: Path) -> VidpipeError:
    if answer and answer.error:
        line, full = answer.error
        error = VidpipeError(f"{name}: {line}")
        error.__cause__ = RuntimeError(full) if full else None
        return error
    code = exit_code or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    said = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return VidpipeError(f"{name}: its process died ({how}){f': {said[-1][:300]}' if said else ''}")


def _serve(pipe: Connection[_Answer, None], log_path: str, target: str, setup: PrepArmSetup) -> None:
    """Be an arm's process; what is printed goes to the log."""
    os.setpgid(0, 0)
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    done: list[Done] = []
    first: list[float] = []

    def report(video: Done) -> None:
        if not first:
            first.append(time.monotonic())
        done.append(video)

    try:
        load_arm(target)(setup).run(report)
        answer = _Answer(tuple(done), first[0] if first else None, _cpu_seconds())
    except VidpipeError as error:
        answer = _Answer(error=(str(error), ""))
    except Exception as error:
        answer = _Answer(error=(f"{type(error).__name__}: {' '.join(str(error).split())}", traceback.format_exc()))
    pipe.send(answer)


def _cpu_seconds() -> float:
    """Of this process and of all its descendants that have ended and been waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class _Watcher:
    """Samples the memory of a process group in a thread, until it is stopped."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._peak = self._workers_peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
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
