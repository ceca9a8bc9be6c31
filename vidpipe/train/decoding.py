"""Decoding for prediction: ahead of the model, in child processes that are killed when a video takes too long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vidpipe.errors import VideoError
from vidpipe.train import decoding_process
from vidpipe.train.decoding_process import Clips, Job
from vidpipe.train.stored_clips import StoredClips
from vidpipe.video.child import Child
from vidpipe.video.decode import Decoder

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
        clips: those that are cut from each video.
        timeout_seconds: for each video.
    """

    def __init__(self, clips: StoredClips, *, workers: int, timeout_seconds: float, decoder: Decoder = "auto") -> None:
        self._clips, self._decoder = clips, decoder
        self._stop = threading.Event()
        self._children: list[Child[Job, Clips]] = [
            Child(decoding_process.main, timeout_seconds=timeout_seconds, stop=self._stop) for _ in range(workers)
        ]
        self._idle: queue.SimpleQueue[Child[Job, Clips]] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
        self._room = threading.Semaphore(2 * workers)

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
                    if self._stop.is_set():
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
        child = self._idle.get()
        job = Job(path, self._clips, self._decoder)
        try:
            child.send(job)
            return DecodedVideo(path, child.receive(job), None)
        except VideoError as error:
            return DecodedVideo(path, None, error)
        finally:
            self._idle.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._room.release()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()
