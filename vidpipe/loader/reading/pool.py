"""Threads that read clips."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.cores import own_cores
from vidpipe.errors import ShardError, UsageError
from vidpipe.loader.reading.buffers import BufferPool, aligned, aligned_array
from vidpipe.loader.reading.process import Wanted
from vidpipe.loader.reading.process_pool import ReadProcesses
from vidpipe.loader.reading.quarantine import Quarantine
from vidpipe.loader.reading.stored import Stored, StoredSource
from vidpipe.loader.reading.tasks import Reading
from vidpipe.loader.reading.thread_memory import ThreadMemory
from vidpipe.loader.request import Request
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec, Frames

R = TypeVar("R")

MAX_THREADS = 16
MAX_COPYING = 8  # on 16 cores 8 of them were 13 % faster than 16, which wait for Python's lock
# Batches of nearly one size take each other's memory: to page-lock other memory, all of a GPU is waited for.
BUFFER_STEP = 1 << 22
TASK_BYTES = 1 << 20  # small clips are read several in a task, as handing over a task costs as much as reading 0.1 MB


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
        self._allocate = allocate
        self._take_processes(processes)
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

        sizes = [
            self._reader.stored_bytes(request.sample, request.frames)
            if self._stays_stored(request, undecoded)
            else self._size(request)
            for request in requests
        ]
        room = [  # none for what stays stored, which threads put elsewhere
            0 if self._stays_stored(request, undecoded) and not self._processes else aligned(size)
            for request, size in zip(requests, sizes, strict=True)
        ]
        *starts, end = itertools.accumulate(room, initial=0)
        buffer = self._buffers.take(end)

        def serve(place: int) -> tuple[Request, Any]:
            part = buffer[starts[place] : starts[place] + room[place]]
            return self._served(requests[place], lambda request: self._read_into(part, request, undecoded))

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

        def serve(place: int) -> Request:
            request, video = self._served(requests[place], self._read_into_thread)
            work(place, video, request)
            return request

        return self._share_out([self._size(request) for request in requests], serve)

    def without_processes(self) -> None:
        """End the processes, before anything is read: the threads do without them."""
        if self._processes:
            self._processes.close()
        self._take_processes(None)

    def close(self) -> None:
        """End the threads, and the processes; what they have not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._processes:
            self._processes.close()

    def _take_processes(self, processes: ReadProcesses | None) -> None:
        self._processes = processes
        self._buffers = BufferPool(processes.memory.allocate if processes else self._allocate, step=BUFFER_STEP)

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

    def _served(self, wanted: Request, read: Callable[[Request], R]) -> tuple[Request, R]:
        """What was read of a request, or of what stands in for it."""
        request, quarantine = wanted, self._quarantine
        if quarantine is None:
            return request, read(request)
        while True:
            if request.sample not in quarantine:
                try:
                    return request, read(request)
                except ShardError as error:
                    quarantine.add(request.sample, error)
            request = quarantine.stand_in(wanted)

    def _stays_stored(self, request: Request, undecoded: frozenset[str]) -> bool:
        return bool(undecoded) and self._reader.codec_of(request.sample) in undecoded

    def _read_into(self, part: NDArray[np.uint8], request: Request, undecoded: frozenset[str]) -> Frames | Stored:
        """Read a request into its part of a batch's buffer, or elsewhere where it stays stored or, standing in, has no room there."""
        if self._stays_stored(request, undecoded):
            return self._reader.read_stored(request.sample, request.frames)
        size = self._size(request)
        out = part if size <= len(part) else np.empty(size, np.uint8)
        return self._reader.read(request.sample, request.frames, out)

    def _read_into_thread(self, request: Request) -> Frames:
        """Read a request into this thread's memory, where the next one will be."""
        out = self._memory.take("frames", (self._size(request),), dtype=torch.uint8).numpy()
        return self._reader.read(request.sample, request.frames, out)


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
