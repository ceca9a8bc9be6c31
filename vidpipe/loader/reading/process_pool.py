"""Processes that read clips for a loader, so that reading doesn't take Python's lock from the thread that trains."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError, VidpipeError
from vidpipe.loader.reading.filmstrip import Filmstrip
from vidpipe.loader.reading.process import Placed, ReadAnswer, ReadJob, ReadPlan, Wanted, main
from vidpipe.loader.reading.shared_memory import PageLock, SharedMemory, share
from vidpipe.loader.reading.stored import Stored
from vidpipe.shards.codecs.base import Frames
from vidpipe.spawn import spawn

END_SECONDS = 5.0  # that a process may take to end by itself

logger = logging.getLogger("vidpipe.loader")


class _Process:
    """One of them, and the pipe to it.

    Args:
        descriptors: of the shared memory, and of the plan.
    """

    def __init__(self, descriptors: tuple[int, int]) -> None:
        self._descriptors = descriptors
        self.popen: subprocess.Popen[bytes]
        self.pipe: Connection[ReadJob, ReadAnswer]
        self.start()

    def start(self) -> None:
        """Start it, or another one in its place."""
        self.popen, self.pipe = spawn(main, self._descriptors)

    def check(self) -> None:
        """Wait until it is ready.

        Raises:
            UsageError: it ends instead.
        """
        try:
            self._asked(ReadJob(0, (), frozenset()))
        except (EOFError, OSError) as error:
            raise UsageError(
                f"readers: a process that reads can't start ({self._end()}); what it said stands above. readers='threads' does "
                "without such processes"
            ) from error

    def answer(self, job: ReadJob) -> ReadAnswer:
        """What it says to a job.

        Raises:
            VidpipeError: it died, and so did another one that was started in its place.
        """
        try:
            return self._asked(job)
        except (EOFError, OSError):
            logger.warning("readers: a process that reads died (%s); another one reads its clips again", self._end())
        try:
            self.start()
            return self._asked(job)
        except (EOFError, OSError) as error:
            raise VidpipeError(
                f"readers: a process that reads died ({self._end()}), and so did the one before it, over the same clips; what "
                "they said stands above. If the system ended them for want of memory, take fewer `threads`; readers='threads' "
                "does without such processes"
            ) from error

    def _asked(self, job: ReadJob) -> ReadAnswer:
        self.pipe.send(job)
        answer: ReadAnswer = self.pipe.recv()
        return answer

    def _end(self) -> str:
        """Have it ended, and say how it did."""
        self.pipe.close()
        try:
            code = self.popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return "its pipe closed"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class ReadProcesses:
    """So many processes, each of which serves one thread at a time.

    Args:
        plan: what they read.
        lock: see `SharedMemory`.

    Raises:
        UsageError: the system starts no more of them, or has no such memory.
    """

    def __init__(self, plan: ReadPlan, *, number: int, lock: PageLock | None = None) -> None:
        self.bytes_read = 0
        self._plan = plan
        self._codecs = [manifest.codec.name for manifest in plan.manifests]
        self._counting = threading.Lock()
        self._free: SimpleQueue[_Process] = SimpleQueue()
        processes: list[_Process] = []
        try:
            self.memory = SharedMemory(lock)
            files = ExitStack()
            files.callback(self.memory.close)
            self._end = weakref.finalize(self, _end, processes, files, os.getpid())
            try:
                descriptors = (self.memory.descriptor, files.enter_context(share(plan)).fileno())
                while len(processes) < number:
                    processes.append(_Process(descriptors))
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise UsageError(
                f"readers: {number} processes can't be started ({error.strerror}): take fewer `threads`, raise the limit that they "
                "meet (`ulimit -u` for processes, `-n` for open files), or take readers='threads'"
            ) from error
        self._processes = processes
        for process in processes:
            self._free.put(process)

    def check(self) -> None:
        """Wait until all are ready, before anything is read.

        Raises:
            UsageError: one of them ends instead, or the memory's pages can't be locked.
        """
        self.memory.allocate(1)
        for process in self._processes:
            process.check()

    def read(
        self, buffer: NDArray[np.uint8], wanted: Sequence[Wanted], *, undecoded: frozenset[str]
    ) -> list[Frames | Stored | None]:
        """Read samples into a buffer of `memory`'s, or what is stored of those with a codec of `undecoded`.

        Returns:
            views of the buffer; None for each sample that couldn't be read.

        Raises:
            VidpipeError: the process died over them, and so did another one.
        """
        process = self._free.get()
        try:
            answer = process.answer(ReadJob(self.memory.offset(buffer), wanted, undecoded))
        finally:
            self._free.put(process)
        with self._counting:
            self.bytes_read += answer.bytes_read
        return [
            None if placed is None else self._result(buffer, one, placed)
            for one, placed in zip(wanted, answer.placed, strict=True)
        ]

    def close(self) -> None:
        """End them."""
        self._end()

    def _result(self, buffer: NDArray[np.uint8], wanted: Wanted, placed: Placed) -> Frames | Stored:
        _, height, width = self._plan.places.shape_of(wanted.sample)
        shape = (len(wanted.frames), height, width, 3)
        if not (placed.parts or placed.strips):
            size = len(wanted.frames) * height * width * 3
            return buffer[wanted.start : wanted.start + size].reshape(shape)
        codec = self._codecs[int(self._plan.split_of_shard[self._plan.places.shard[wanted.sample]])]
        content = buffer.data
        parts = [content[start : start + size] for start, size in placed.parts]
        strips = [Filmstrip(content[start : start + size], *rest) for start, size, *rest in placed.strips]
        return Stored(codec, parts, wanted.frames, shape, strips)


def _end(processes: Sequence[_Process], files: ExitStack, parent: int) -> None:
    if os.getpid() != parent:
        return  # a fork, which they don't serve
    files.close()
    for process in processes:
        process.pipe.close()
    for process in processes:
        try:
            process.popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
