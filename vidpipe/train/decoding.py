"""Decoding for prediction: ahead of the model, in child processes that are killed when a video takes too long."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.train.decoding_process import READY, Answer, Clips, Job
from vidpipe.video.decode import Decoder
from vidpipe.video.spec import ClipSpec

_CHILD = "import sys; from vidpipe.train.decoding_process import main; main(int(sys.argv[1]))"
_IDLE_SECONDS = 0.5


@dataclass(frozen=True)
class DecodedVideo:
    """What became of a video: its clips, or why there are none."""

    path: Path
    clips: Clips | None
    error: VideoError | None


class DecodingPool:
    """Decodes videos in several child processes, at most twice as many videos ahead of the consumer.

    Args:
        spec: the clips that are cut from each video.
        timeout_seconds: for each video.
    """

    def __init__(self, spec: ClipSpec, *, workers: int, timeout_seconds: float, decoder: Decoder = "auto") -> None:
        self._spec, self._decoder = spec, decoder
        self._children: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._all = [_Child(timeout_seconds) for _ in range(workers)]
        for child in self._all:
            self._children.put(child)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
        self._room = threading.Semaphore(2 * workers)
        self._closed = False

    def run(self, paths: Iterable[Path]) -> Iterator[DecodedVideo | None]:
        """The outcome of each video, in order; None whenever there is none for a moment.

        Args:
            paths: taken in a thread of their own, so they may be long in coming.

        Raises:
            VidpipeError: decoding can't work at all here, for instance for a broken installation.
        """
        coming: queue.SimpleQueue[Future[DecodedVideo] | BaseException | None] = queue.SimpleQueue()

        def feed() -> None:
            try:
                for path in paths:
                    self._room.acquire()
                    if self._closed:
                        return
                    coming.put(self._threads.submit(self._decode, path))
                coming.put(None)
            except BaseException as error:
                coming.put(error)

        threading.Thread(target=feed, name="paths", daemon=True).start()
        while True:
            try:
                item = coming.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            while True:
                try:
                    decoded = item.result(timeout=_IDLE_SECONDS)
                    break
                except TimeoutError:
                    yield None
            self._room.release()
            yield decoded

    def _decode(self, path: Path) -> DecodedVideo:
        child = self._children.get()
        try:
            return DecodedVideo(path, child.decode(Job(path, self._spec, self._decoder)), None)
        except VideoError as error:
            return DecodedVideo(path, None, error)
        finally:
            self._children.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._room.release()
        for child in self._all:
            child.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._all:
            child.stop()


class _Child:
    """One child process, started when it is needed and after it was killed."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Job, Answer] | None = None
        self._closed = False

    def decode(self, job: Job) -> Clips:
        """The clips of a video.

        Raises:
            VideoError: it can't be used, takes too long or kills the child twice, which may have been killed from outside.
            VidpipeError: the child can't start.
        """
        code = 0
        for _ in range(2):
            answer = self._ask(job)
            if isinstance(answer, VidpipeError):
                raise answer
            if isinstance(answer, list):
                return answer
            code = answer
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise VideoError("crash", f"the decoding process died twice over this video ({how})", stage="decode")

    def _ask(self, job: Job) -> Clips | VidpipeError | int:
        """The child's answer, or the exit code with which it ended."""
        if self._process is None:
            self._start()
        assert self._pipe is not None and self._process is not None
        try:
            self._pipe.send(job)
            if not self._pipe.poll(self._timeout_seconds):
                self.stop()
                message = f"no end of decoding after {self._timeout_seconds:g} s; killed (--timeout)"
                return VideoError("timeout", message, stage="decode")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            self.stop()
            return code
        assert answer != READY
        return answer

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()
        self._pipe = ours
        if self._closed:
            self._process.kill()
        with suppress(EOFError, OSError):
            if self._pipe.recv() == READY:
                return
        code = self._process.wait()
        self.stop()
        raise VidpipeError(f"the decoding process can't start (exit code {code}); the lines above say why")

    def stop(self) -> None:
        """Kill the process; the next video starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def close(self) -> None:
        """Kill the process, from any thread, and any that is started later; whoever waits for it is told that it ended."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
