"""Threads that read clips."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.cores import own_cores
from vidpipe.errors import ShardError, UsageError
from vidpipe.loader.reading.buffers import BufferPool, aligned, aligned_array
from vidpipe.loader.reading.process import Wanted
from vidpipe.loader.reading.process_pool import ReadProcesses
from vidpipe.loader.reading.quarantine import Quarantine
from vidpipe.loader.reading.stored import Stored, StoredSource
from vidpipe.loader.reading.thread_memory import ThreadMemory
from vidpipe.loader.request import Request
from vidpipe.loader.transfer import videos_in
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec, Frames

R = TypeVar("R")

MAX_THREADS = 16
MAX_COPYING = 8  # on 16 cores 8 of them were 13 % faster than 16, which wait for Python's lock
# Batches of nearly one size take each other's memory: to page-lock other memory, all of a GPU is waited for.
BUFFER_STEP = 1 << 22
TASK_BYTES = 1 << 20  # small clips are read several in a task, as handing over a task costs as much as reading 0.1 MB


@dataclass(frozen=True, slots=True)
class Reading(Generic[R]):
    """A batch that is being read.

    Attributes:
        buffer: flat uint8, into which it is read; what stands in for a damaged sample and is larger has memory of its own.
        starts: where each request's frames begin in it.
    """

    buffer: NDArray[np.uint8]
    starts: list[int]
    tasks: list[Future[list[tuple[Request, R]]]]

    def results(self) -> list[tuple[Request, R]]:
        """Wait; for each request the one that was served in the end, and what was read: frames are uint8 [T, H, W, 3]."""
        return results_of(self.tasks)

    def on_device(self, videos: Mapping[int, Frames], device: torch.device) -> dict[int, Tensor]:
        """Queue the copy of what was read to a device, all of it at once, on the current stream.

        Args:
            videos: some of the results' frames, by their places; have to be kept until the copy has ended.

        Returns:
            uint8 [T, H, W, 3] of each.
        """
        inside = [place for place, video in videos.items() if np.may_share_memory(video, self.buffer)]
        copies = {
            place: torch.from_numpy(video).to(device, non_blocking=True)
            for place, video in videos.items()
            if place not in inside
        }
        if inside:
            begin, end = min(self.starts[p] for p in inside), max(self.starts[p] + videos[p].nbytes for p in inside)
            whole = torch.from_numpy(self.buffer[begin:end]).to(device, non_blocking=True)
            starts, shapes = [self.starts[p] - begin for p in inside], [videos[p].shape for p in inside]
            copies |= zip(inside, videos_in(whole, starts, shapes), strict=True)
        return copies


def results_of(tasks: Sequence[Future[list[R]]]) -> list[R]:
    """Wait until all have ended, or one has failed, whose error is raised.

    The thread wakes up once. If it did for each of them, it would have to get hold of Python's lock as often.
    """
    ended: list[Future[list[R]]] = []
    enough, number = threading.Event(), len(tasks)

    def end(task: Future[list[R]]) -> None:
        ended.append(task)
        if len(ended) == number or task.cancelled() or task.exception() is not None:
            enough.set()

    for task in tasks:
        task.add_done_callback(end)
    if tasks:
        enough.wait()
    failed = [task for task in ended if task.cancelled() or task.exception() is not None]
    ended.clear()  # tasks hold `end`: in a circle, what they have read would be kept until garbage is collected
    return [item for task in failed or tasks for item in task.result()]


class ReadPool:
    """Threads that read clips, with the policy for damaged ones.

    Args:
        frame_bytes: gives the bytes of one frame of a sample.
        quarantine: is told of damaged samples, and says which are known and what stands in for them; without it, the first one's
            error is raised.
        allocate: gives the memory that is read into, such as page-locked.
        processes: that read for the threads, into their own memory; what they can't read, the threads try.
        batches: that are under way at once.
    """

    def __init__(
        self,
        reader: StoredSource,
        *,
        threads: int,
        frame_bytes: Callable[[int], int],
        quarantine: Quarantine | None = None,
        allocate: Callable[[int], NDArray[np.uint8]] = aligned_array,
        processes: ReadProcesses | None = None,
        batches: int = 1,
    ) -> None:
        self._reader = reader
        self._frame_bytes = frame_bytes
        self._quarantine = quarantine
        self._processes = processes
        self._buffers = BufferPool(processes.memory.allocate if processes else allocate, step=BUFFER_STEP)
        self._memory = ThreadMemory()
        # So few tasks of a batch that all under way together keep every thread busy: each costs handing over and waiting.
        self._tasks = -(-threads // batches)
        self._executor = _single_threaded_workers(threads)

    @property
    def bytes_read(self) -> int:
        """By processes, from the shards, as they are stored."""
        return self._processes.bytes_read if self._processes else 0

    @overload
    def read(self, requests: Sequence[Request]) -> Reading[Frames]: ...

    @overload
    def read(self, requests: Sequence[Request], *, undecoded: frozenset[str]) -> Reading[Frames | Stored]: ...

    def read(self, requests: Sequence[Request], *, undecoded: frozenset[str] = frozenset()) -> Reading[Any]:
        """Read all samples of a batch, each into its part of one buffer.

        Args:
            undecoded: names of the codecs of whose samples what is stored is wanted instead.
        """

        def stays_stored(sample: int) -> bool:
            return bool(undecoded) and self._reader.codec_of(sample) in undecoded

        def read(sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames | Stored:
            if stays_stored(sample):
                return self._reader.read_stored(sample, frames)
            return self._reader.read(sample, frames, out)

        sizes = [
            self._reader.stored_bytes(request.sample, request.frames)
            if stays_stored(request.sample)
            else self._size(request)
            for request in requests
        ]
        room = [
            0 if stays_stored(request.sample) and not self._processes else aligned(size)  # the threads put it elsewhere
            for request, size in zip(requests, sizes, strict=True)
        ]
        *starts, end = itertools.accumulate(room, initial=0)
        buffer = self._buffers.take(end)

        def serve(place: int) -> tuple[Request, Any]:
            def memory(request: Request) -> NDArray[np.uint8]:
                part, size = buffer[starts[place] : starts[place] + room[place]], self._size(request)
                return part if size <= len(part) or stays_stored(request.sample) else np.empty(size, np.uint8)

            return self._read(read, requests[place], memory)

        def serve_by_process(group: range) -> list[tuple[Request, Any]]:
            assert self._processes is not None
            sound = [p for p in group if self._quarantine is None or requests[p].sample not in self._quarantine]
            wanted = [Wanted(requests[p].sample, requests[p].frames, starts[p], room[p]) for p in sound]
            found = dict(zip(sound, self._processes.read(buffer, wanted, undecoded=undecoded), strict=True))
            return [serve(p) if found.get(p) is None else (requests[p], found[p]) for p in group]

        if self._processes is None:
            return Reading(buffer, starts, self._share_out(sizes, serve))
        together = -(-len(requests) // self._tasks)
        return Reading(buffer, starts, self._submit(serve_by_process, len(requests), together))

    def process(
        self, requests: Sequence[Request], work: Callable[[int, Frames, Request], None]
    ) -> list[Future[list[Request]]]:
        """Read samples and do `work` with each in the same thread, whose memory is then used for the next one.

        Args:
            work: is given the request's place in the batch, its frames (uint8 [T, H, W, 3]), and the request.

        Returns:
            the requests that were served in the end.
        """

        def memory(request: Request) -> NDArray[np.uint8]:
            return self._memory.take("frames", (self._size(request),), dtype=torch.uint8).numpy()

        def serve(place: int) -> Request:
            request, video = self._read(self._reader.read, requests[place], memory)
            work(place, video, request)
            return request

        return self._share_out([self._size(request) for request in requests], serve)

    def close(self) -> None:
        """End the threads, and the processes; what they have not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._processes:
            self._processes.close()

    def _size(self, request: Request) -> int:
        """Bytes of the frames that a request reads."""
        return len(request.frames) * self._frame_bytes(request.sample)

    def _share_out(self, sizes: Sequence[int], serve: Callable[[int], R]) -> list[Future[list[R]]]:
        """Call `serve` for each place in the pool's threads, for several small samples in one task.

        Args:
            sizes: of what is read for each place, in bytes.
        """
        together = max(1, min(TASK_BYTES // max(sizes), -(-len(sizes) // self._tasks)))

        def serve_all(group: range) -> list[R]:
            return [serve(place) for place in group]

        return self._submit(serve_all, len(sizes), together)

    def _submit(self, serve: Callable[[range], list[R]], places: int, together: int) -> list[Future[list[R]]]:
        """Call `serve` in the pool's threads for all places, so many of them in each call."""
        groups = [range(places)[first : first + together] for first in range(0, places, together)]
        return [self._executor.submit(serve, group) for group in groups]

    def _read(
        self,
        read: Callable[[int, Sequence[int], NDArray[np.uint8]], R],
        wanted: Request,
        memory: Callable[[Request], NDArray[np.uint8]],
    ) -> tuple[Request, R]:
        """What was read of a request, or of what stands in for it, in the `memory` for it."""
        request, quarantine = wanted, self._quarantine
        if quarantine is None:
            return request, read(request.sample, request.frames, memory(request))
        while True:
            if request.sample not in quarantine:
                try:
                    return request, read(request.sample, request.frames, memory(request))
                except ShardError as error:
                    quarantine.add(request.sample, error)
            request = quarantine.stand_in(wanted)


def default_threads(codecs: Iterable[CodecSpec], device: str) -> int:
    """One for each of this process's own cores, 16 at most, and 8 where they only copy frames for a GPU.

    Args:
        codecs: of what they read.
        device: type of the batches' device.
    """
    copying = device == "cuda" and all(make_codec(codec).raw_parts for codec in codecs)
    return min(MAX_COPYING if copying else MAX_THREADS, own_cores())


def _single_threaded_workers(threads: int) -> ThreadPoolExecutor:
    """Threads that compute with one thread of torch's each, so that they don't fight for cores; others keep their number.

    Raises:
        UsageError: the system starts no more threads.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="vidpipe-read")
    everyone = threading.Barrier(threads + 1)

    def settle() -> None:
        torch.get_num_threads()  # a thread takes the process's number when it first asks, and would overwrite ours later
        torch.set_num_threads(1)
        everyone.wait()

    before = torch.get_num_threads()
    try:
        for _ in range(threads):
            executor.submit(settle)
        everyone.wait()
    except BaseException as error:
        everyone.abort()  # or those that have begun would wait for ever, and the interpreter for them
        executor.shutdown()
        if isinstance(error, RuntimeError):
            raise UsageError(
                f"threads: the system doesn't start {threads} of them ({error}): take fewer, or raise its limit (`ulimit -u`)"
            ) from error
        raise
    finally:
        torch.set_num_threads(before)  # it is also what threads that are yet to start will take
    return executor
