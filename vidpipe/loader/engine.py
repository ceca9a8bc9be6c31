"""What the backends share: requests for clips, threads that read them, buffers that are used again."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.errors import BadSampleError, ShardError
from vidpipe.loader.augment import Region
from vidpipe.loader.reader import ClipReader
from vidpipe.shards.codecs.base import Frames

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Request:
    """One clip of a batch.

    Attributes:
        sample: place in the index.
        frames: of the stored clip.
        region: of the stored frame.
        is_padding: whether it only fills up the batch.
    """

    sample: int
    frames: Sequence[int]
    region: Region
    is_padding: bool


class BufferPool:
    """Memory that is handed out again once the array that was given, and every view of it, is gone."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes with arbitrary content. It goes back by itself."""
        memory = None
        for _ in range(len(self._free)):
            memory = self._free.popleft()
            if memory.nbytes >= size:
                break
            memory = None
        if memory is None:
            memory = np.empty(size, np.uint8)
        lease = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lease, self._free.append, memory)
        return lease[:size]


class ReadPool:
    """Threads that read clips, with the policy for damaged ones.

    Args:
        stand_in: gives another request for a sample that is damaged; None stops at it.
    """

    def __init__(
        self, reader: ClipReader, *, threads: int, frame_bytes: int, stand_in: Callable[[Request, int], Request] | None
    ) -> None:
        self.bad_samples = 0
        self.bytes_read = 0
        self._reader = reader
        self._frame_bytes = frame_bytes
        self._stand_in = stand_in
        self._buffers = BufferPool()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="vidpipe-read")
        self._lock = threading.Lock()

    def start(
        self, requests: Sequence[Request], work: Callable[[int, Frames, Request], R]
    ) -> list[Future[tuple[Request, R]]]:
        """Read all clips of a batch, each into its part of one buffer, and do `work` with it in the same thread.

        Args:
            work: is given the clip's place in the batch, its frames (uint8 [T, H, W, 3], a view of the buffer), and the request.

        Returns:
            a future for each clip, of the request that was served in the end and what `work` gave.
        """
        frames = len(requests[0].frames)
        each = frames * self._frame_bytes
        buffer = self._buffers.take(each * len(requests))
        return [
            self._executor.submit(self._serve, place, request, buffer[place * each : (place + 1) * each], work)
            for place, request in enumerate(requests)
        ]

    def close(self) -> None:
        """End the threads; what they have not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _serve(
        self, place: int, request: Request, out: NDArray[np.uint8], work: Callable[[int, Frames, Request], R]
    ) -> tuple[Request, R]:
        attempt = 0
        while True:
            try:
                video = self._reader.read(request.sample, request.frames, out)
                break
            except ShardError as error:
                with self._lock:
                    self.bad_samples += 1
                if self._stand_in is None or not isinstance(error, BadSampleError):
                    raise
                attempt += 1
                request = self._stand_in(request, attempt)
        with self._lock:
            self.bytes_read += video.nbytes
        return request, work(place, video, request)


class Engine(ABC):
    """A backend: requests in, the model's input out. `start` returns at once; `finish` waits and may run in another thread."""

    @abstractmethod
    def start(self, requests: Sequence[Request]) -> object:
        """Begin to read a batch."""

    @abstractmethod
    def finish(self, started: object) -> tuple[list[Request], Tensor]:
        """The requests that were served in the end, and the batch: float32 [B, 3, T, size, size]."""

    @abstractmethod
    def close(self) -> None:
        """Free what the backend holds."""
