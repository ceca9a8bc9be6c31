"""Threads that read clips."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.errors import ShardError
from vidpipe.loader.memory import BufferPool, ThreadMemory
from vidpipe.loader.quarantine import Quarantine
from vidpipe.loader.request import Request
from vidpipe.shards.codecs.base import Frames

R = TypeVar("R")

TASK_BYTES = 1 << 20  # small clips are read several in a task, as handing over a task costs as much as reading 0.1 MB


class Reader(Protocol):
    """What the threads read with, all at once; see `ClipReader.read`."""

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """Some frames of a sample's clip, in `out`."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[R]):
    """A batch that is being read.

    Attributes:
        buffer: flat uint8, into which it is read.
        starts: where each request's frames begin in it.
    """

    buffer: NDArray[np.uint8]
    starts: list[int]
    tasks: list[Future[list[tuple[Request, R]]]]

    def results(self) -> list[tuple[Request, R]]:
        """Wait; for each request the one that was served in the end, and what was read: frames are uint8 [T, H, W, 3] in the buffer."""
        return [item for task in self.tasks for item in task.result()]


class ReadPool:
    """Threads that read clips, with the policy for damaged ones.

    Args:
        quarantine: is told of damaged samples, and says which are known; without it, the first one's error is raised.
        stand_in: gives a request with as many clips in place of one whose sample is in quarantine.
        pinned: read into page-locked memory.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        threads: int,
        frame_bytes: int,
        quarantine: Quarantine | None = None,
        stand_in: Callable[[Request], Request] | None = None,
        pinned: bool = False,
    ) -> None:
        self._reader = reader
        self._frame_bytes = frame_bytes
        self._quarantine = quarantine
        self._stand_in = stand_in
        self._buffers = BufferPool(pinned=pinned)
        self._memory = ThreadMemory()
        self._threads = threads
        self._executor = _single_threaded_workers(threads)

    def read(self, requests: Sequence[Request]) -> Reading[Frames]:
        """Read all samples of a batch, each into its part of one buffer."""
        return self.read_with(self._reader.read, requests)

    def read_with(
        self,
        read: Callable[[int, Sequence[int], NDArray[np.uint8]], R],
        requests: Sequence[Request],
        *,
        into_buffer: bool = True,
    ) -> Reading[R]:
        """As `read`, with another function than the reader's, which perhaps needs no buffer."""
        ends = np.cumsum([self._room(request) if into_buffer else 0 for request in requests]).tolist()
        starts = [0, *ends[:-1]]
        buffer = self._buffers.take(ends[-1])
        tasks = self._share_out(
            requests, lambda place: self._read(read, requests[place], buffer[starts[place] : ends[place]])
        )
        return Reading(buffer, starts, tasks)

    def process(
        self, requests: Sequence[Request], work: Callable[[int, Frames, Request], None]
    ) -> list[Future[list[Request]]]:
        """Read samples and do `work` with each in the same thread, whose memory is then used for the next one.

        Args:
            work: is given the request's place in the batch, its frames (uint8 [T, H, W, 3]), and the request.

        Returns:
            the requests that were served in the end.
        """

        def serve(place: int) -> Request:
            memory = self._memory.take("frames", (self._room(requests[place]),), dtype=torch.uint8)
            request, video = self._read(self._reader.read, requests[place], memory.numpy())
            work(place, video, request)
            return request

        return self._share_out(requests, serve)

    def close(self) -> None:
        """End the threads; what they have not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _room(self, request: Request) -> int:
        """Bytes that a request needs, or any stand-in for it, whose clips may have fewer frames in common."""
        frames = len(request.frames) if self._stand_in is None else sum(len(take.frames) for take in request.takes)
        return frames * self._frame_bytes

    def _share_out(self, requests: Sequence[Request], serve: Callable[[int], R]) -> list[Future[list[R]]]:
        """Call `serve` for each place in the pool's threads, for several small samples in one task."""
        largest = max(self._room(request) for request in requests)
        together = max(1, min(TASK_BYTES // largest, -(-len(requests) // self._threads)))
        places = range(len(requests))

        def serve_all(group: range) -> list[R]:
            return [serve(place) for place in group]

        return [self._executor.submit(serve_all, places[first : first + together]) for first in places[::together]]

    def _read(
        self, read: Callable[[int, Sequence[int], NDArray[np.uint8]], R], wanted: Request, out: NDArray[np.uint8]
    ) -> tuple[Request, R]:
        request = wanted
        while True:
            try:
                if self._quarantine is None or request.sample not in self._quarantine:
                    return request, read(request.sample, request.frames, out)
            except ShardError as error:
                if self._quarantine is None:
                    raise
                self._quarantine.add(request.sample, error)
            assert self._stand_in is not None
            request = self._stand_in(wanted)


def _single_threaded_workers(threads: int) -> ThreadPoolExecutor:
    """Threads that compute with one thread of torch's each, so that they don't fight for cores; others keep their number."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="vidpipe-read")
    everyone = threading.Barrier(threads + 1)

    def settle() -> None:
        torch.get_num_threads()  # a thread takes the process's number when it first asks, and would overwrite ours later
        torch.set_num_threads(1)
        everyone.wait()

    before = torch.get_num_threads()
    for _ in range(threads):
        executor.submit(settle)
    everyone.wait()
    torch.set_num_threads(before)  # it is also what threads that are yet to start will take
    return executor
