"""The parent's handle on a decoding child: jobs in, clips out, SIGKILL when a video takes too long."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Event
from typing import IO

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.prep.decoder_process import READY, ClipResult, Decoded, Job

POLL_SECONDS = 0.2
RECYCLE_AFTER_VIDEOS = 500
NUM_BUFFERS = 2
MAX_STARTS = 3

_CHILD = "import sys; from vidpipe.prep.decoder_process import main; main(*map(int, sys.argv[1:]))"


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """The run was asked to stop while a video was being decoded."""


class Decoder:
    """A child process that decodes videos, restarted when it dies, hangs or has done its share.

    While the caller deals with one video's clips the child decodes the next: there are two shared buffers.

    Args:
        timeout_seconds: for each video.
        stop: when set, waiting ends with Interrupted.
    """

    def __init__(self, *, timeout_seconds: float, stop: Event) -> None:
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._buffers = [_shared_buffer() for _ in range(NUM_BUFFERS)]
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Job, Decoded | VidpipeError | str] | None = None
        self._videos = 0

    def run(self, jobs: Iterable[Job]) -> Iterator[Decoded]:
        """The outcome of each job, in order. What `payload` gives for it stays valid until the next but one is asked for.

        Raises:
            Interrupted: `stop` was set.
            VidpipeError: decoding can't work at all here, for instance for a broken installation.
        """
        queue = iter(jobs)
        current = next(queue, None)
        if current is not None:
            self._send(current)
        while current is not None:
            outcome = self._receive(current)
            following = next(queue, None)
            if following is not None:
                self._send(following)
            yield outcome
            current = following

    def payload(self, job: Job, clip: ClipResult) -> dict[str, memoryview]:
        """A clip's files by extension, as copy-free views of the shared buffer; let go of them before the next video."""
        memory = memoryview(mmap.mmap(self._buffers[job.buffer].fileno(), 0, access=mmap.ACCESS_READ))
        return {extension: memory[offset : offset + size] for extension, offset, size in clip.members}

    def close(self) -> None:
        """End the child and free the buffers."""
        self._kill()
        for buffer in self._buffers:
            buffer.close()

    def _send(self, job: Job) -> None:
        if self._child is None or self._videos >= RECYCLE_AFTER_VIDEOS:
            self._kill()
            self._start()
        assert self._pipe is not None
        self._videos += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(job)

    def _receive(self, job: Job, *, attempt: int = 1) -> Decoded:
        assert self._pipe is not None and self._child is not None
        waited = 0.0
        while not self._pipe.poll(POLL_SECONDS):
            if self._stop.is_set():
                self._kill()
                raise Interrupted
            waited += POLL_SECONDS
            if waited >= self._timeout_seconds:
                self._kill()
                message = f"no end of decoding after {self._timeout_seconds:g} s; killed (--timeout)"
                return Decoded(error=VideoError("timeout", message, stage="decode"))
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._died(job, attempt)
        if isinstance(answer, VidpipeError):
            raise answer
        assert isinstance(answer, Decoded)
        return answer

    def _died(self, job: Job, attempt: int) -> Decoded:
        """The child died over this video: try once more, since it may have been killed from outside, then reject."""
        assert self._child is not None
        code = self._child.wait()
        self._kill()
        if self._stop.is_set():
            raise Interrupted
        if attempt == 1:
            self._send(job)
            return self._receive(job, attempt=2)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        message = f"the decoding process died twice over this video ({how})"
        return Decoded(error=VideoError("crash", message, stage="decode"))

    def _start(self) -> None:
        """Start a child and wait until it answers, so that one that can't start at all is no video's fault."""
        for _ in range(MAX_STARTS):
            self._spawn()
            assert self._pipe is not None and self._child is not None
            try:
                if self._pipe.recv() == READY:
                    return
            except (EOFError, ConnectionResetError):
                code = self._child.wait()
            self._kill()
            if code >= 0:
                break
        raise VidpipeError(
            f"the decoding process can't start (exit code {code}); the lines above say why. "
            "`pip install --force-reinstall vidpipe` mends a broken installation"
        )

    def _spawn(self) -> None:
        ours, theirs = Pipe()
        fds = [theirs.fileno(), *(buffer.fileno() for buffer in self._buffers)]
        command = [sys.executable, "-P", "-c", _CHILD, *map(str, fds)]
        self._child = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, env=_single_threaded())
        theirs.close()
        self._pipe = ours
        self._videos = 0

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _single_threaded() -> dict[str, str]:
    """The environment of a child: one thread a library, since there is one child a core."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _shared_buffer() -> IO[bytes]:
    """An unnamed file in memory, or on disk where the system has none in memory."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("vidpipe-clips"), "wb", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
