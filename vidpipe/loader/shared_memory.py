"""Memory that a loader shares with the processes that read for it, and objects that they are given once."""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.memory import aligned
from vidpipe.spawn import shared_file

MAX_MAPPED = 64  # by a process that reads: what it was given before and isn't used any more is let go of then

Lock = Callable[[NDArray[np.uint8]], Callable[[], None]]


class SharedMemory:
    """A file in memory, of which parts are handed out. A part is never at a place where another was, so that none is mistaken.

    Args:
        lock: done to each new part, such as locking its pages; gives what undoes it.
    """

    def __init__(self, lock: Lock | None = None) -> None:
        self._file = shared_file("vidpipe-frames")
        self._lock = lock
        self._end = 0
        self._offsets: dict[int, int] = {}

    @property
    def descriptor(self) -> int:
        """Of the file, for other processes."""
        return self._file.fileno()

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes of zero. The memory is free again when it is gone."""
        whole = max(1, -(-size // mmap.ALLOCATIONGRANULARITY)) * mmap.ALLOCATIONGRANULARITY
        offset, self._end = self._end, self._end + whole
        os.ftruncate(self.descriptor, self._end)
        mapped = mmap.mmap(self.descriptor, whole, offset=offset)
        memory = np.frombuffer(mapped, np.uint8)
        unlock = self._lock(memory) if self._lock else None
        self._offsets[memory.ctypes.data] = offset
        weakref.finalize(memory, _release, mapped, unlock, self._offsets, memory.ctypes.data).atexit = False
        return memory[:size]

    def offset(self, memory: NDArray[np.uint8]) -> int:
        """Where memory that was handed out, or any array that begins where it does, lies in the file."""
        return self._offsets[memory.ctypes.data]


class MappedMemory:
    """The same file in another process.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def part(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Flat uint8 [size], from `offset` on."""
        place = (offset, size)
        if place not in self._mapped:
            if len(self._mapped) >= MAX_MAPPED:
                self._mapped.popitem(last=False)
            self._mapped[place] = np.frombuffer(mmap.mmap(self._descriptor, size, offset=offset), np.uint8)
        self._mapped.move_to_end(place)
        return self._mapped[place]


def share(value: object) -> IO[bytes]:
    """A file in memory that holds an object; its arrays are there once, however many processes have them."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    pieces = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    table = np.array([len(pieces), *(piece.nbytes for piece in pieces)], np.int64)
    *starts, end = _starts(table)
    file = shared_file("vidpipe-plan")
    os.ftruncate(file.fileno(), end)
    memory = memoryview(mmap.mmap(file.fileno(), end))
    for start, piece in zip([0, *starts], [memoryview(table.tobytes()), *pieces], strict=True):
        memory[start : start + piece.nbytes] = piece
    return file


def shared(descriptor: int) -> Any:
    """What `share` was given. Its arrays are the file itself, and can't be written."""
    memory = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    (pieces,) = np.frombuffer(memory, np.int64, 1)
    table = np.frombuffer(memory, np.int64, 1 + pieces)
    content, *buffers = (
        memory[start : start + size] for start, size in zip(_starts(table)[:-1], table[1:].tolist(), strict=True)
    )
    return pickle.loads(content, buffers=buffers)


def _starts(table: NDArray[np.int64]) -> list[int]:
    """Where the pieces of such a file begin, given their number and sizes, which stand before them; and where the last one ends."""
    return [*itertools.accumulate((aligned(size) for size in table[1:].tolist()), initial=aligned(table.nbytes))]


def _release(mapped: mmap.mmap, unlock: Callable[[], None] | None, offsets: dict[int, int], address: int) -> None:
    if unlock:
        unlock()
    del offsets[address]
    with suppress(AttributeError, OSError):  # whoever has it mapped, too, finds it empty then
        mapped.madvise(mmap.MADV_REMOVE)
