"""A child process that decodes: its parent's handle on it, and the loop that it runs.

Decoders hang, leak and crash on damaged input, so a child has a time limit, kept by SIGKILL, and is replaced when it dies
or has done its share. Jobs and results go through a pipe, what is large through memory that both share.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Event
from typing import Generic, TypeVar

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.spawn import shared_file, spawn

POLL_SECONDS = 0.2
RECYCLE_AFTER_VIDEOS = 500
MAX_STARTS = 3

_READY = b"ready"

Job = TypeVar("Job")
Result = TypeVar("Result")


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """The run was asked to stop while it waited for a child."""


@dataclass(slots=True)
class _Process(Generic[Job, Result]):
    popen: subprocess.Popen[bytes]
    pipe: Connection[Job, Result | VidpipeError]
    videos: int = 0


class Child(Generic[Job, Result]):
    """A process that does one job after the other, each about one video; it is started when the first one comes.

    Args:
        main: what the child runs, a module's function that calls `serve`: main(pipe_fd, *buffer_fds).
        timeout_seconds: for each job.
        stop: when set, waiting ends with Interrupted.
        num_buffers: how many files of shared memory the child gets.
    """

    def __init__(self, main: Callable[..., None], *, timeout_seconds: float, stop: Event, num_buffers: int = 0) -> None:
        self._main = main
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._buffers = [shared_file("vidpipe-clips") for _ in range(num_buffers)]
        self._process: _Process[Job, Result] | None = None

    def send(self, job: Job) -> None:
        """Hand over a job; the outcome of the one before has been received.

        Raises:
            Interrupted: `stop` was set.
            VidpipeError: the child can't start.
        """
        if self._process is None or self._process.videos >= RECYCLE_AFTER_VIDEOS:
            self._kill()
            self._process = self._start()
        self._process.videos += 1
        with suppress(ConnectionError):  # `receive` will see that it died
            self._process.pipe.send(job)

    def receive(self, job: Job) -> Result:
        """What came of the job that was sent last; tried again if the child dies, which may have been killed from outside.

        Raises:
            Interrupted: `stop` was set.
            VideoError: the job raised it, takes too long or kills the child twice.
            VidpipeError: the job raised it, or the child can't start.
        """
        for attempt in (1, 2):
            if attempt == 2:
                self.send(job)
            assert self._process is not None
            try:
                if not self._wait(self._process, self._timeout_seconds):
                    self._kill()
                    message = f"no end of decoding after {self._timeout_seconds:g} s; killed (--timeout)"
                    raise VideoError("timeout", message, stage="decode")
                answer = self._process.pipe.recv()
            except (EOFError, OSError):
                code = self._end(self._process)
                if self._stop.is_set():
                    raise Interrupted from None
                continue
            if isinstance(answer, VidpipeError):
                raise answer
            return answer
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise VideoError("crash", f"the decoding process died twice over this video ({how})", stage="decode")

    def buffer(self, number: int) -> memoryview:
        """The content of a shared buffer, which isn't copied."""
        return memoryview(mmap.mmap(self._buffers[number].fileno(), 0, access=mmap.ACCESS_READ))

    def stop(self) -> None:
        """End the child with what it is at; the next job starts another."""
        self._kill()

    def close(self) -> None:
        """End the child and free the buffers."""
        self._kill()
        for buffer in self._buffers:
            buffer.close()

    def _start(self) -> _Process[Job, Result]:
        """Start a child and wait until it is ready, so that one that can't start at all is no video's fault."""
        for _ in range(MAX_STARTS):
            process = self._process = self._spawn()
            with suppress(EOFError, OSError):
                self._wait(process, math.inf)
                process.pipe.recv_bytes()
                return process
            code = self._end(process)
            if code >= 0:
                break
        raise VidpipeError(
            f"the decoding process can't start (exit code {code}); the lines above say why. "
            "`pip install --force-reinstall vidpipe` mends a broken installation"
        )

    def _spawn(self) -> _Process[Job, Result]:
        try:
            return _Process(*spawn(self._main, [buffer.fileno() for buffer in self._buffers]))
        except OSError as error:
            raise _machine_error(error) from error

    def _wait(self, process: _Process[Job, Result], seconds: float) -> bool:
        """Whether there is an answer, or the child's end, within that time."""
        waited = 0.0
        while not process.pipe.poll(POLL_SECONDS):
            if self._stop.is_set():
                raise Interrupted
            waited += POLL_SECONDS
            if waited >= seconds:
                return False
        return True

    def _end(self, process: _Process[Job, Result]) -> int:
        """Wait for the child's end; its exit code."""
        self._process = None
        process.pipe.close()
        return process.popen.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.popen.kill()
            self._end(self._process)


def _machine_error(error: OSError) -> VidpipeError:
    where = f"{error.filename}: " if error.filename else ""
    return VidpipeError(
        f"decoding can't go on: {where}{error.strerror or error}; no video is to blame, but this machine or its storage: see to "
        "that and run the same command again"
    )


def serve(pipe_fd: int, work: Callable[[Job], Result]) -> None:
    """What a child does: answer jobs, by a result or the VidpipeError that it raises, until the pipe closes.

    An OSError is taken for the machine's, so that no video is rejected for it. It dies with its parent.

    Args:
        pipe_fd: descriptor of the pipe to the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, whatever the parent dies of
    pipe: Connection[Result | VidpipeError, Job] = Connection(pipe_fd)
    with suppress(ConnectionError):  # of a parent that is gone already, as below
        pipe.send_bytes(_READY)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionError):
            return
        answer: Result | VidpipeError
        try:
            answer = work(job)
        except VidpipeError as error:
            answer = error
        except OSError as error:  # what a file is to blame for came as a VideoError
            answer = _machine_error(error)
        try:
            pipe.send(answer)
        except ConnectionError:
            return
