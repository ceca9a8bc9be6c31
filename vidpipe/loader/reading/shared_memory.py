"""Memory that a loader shares with the processes that read for it, and objects that they are given once."""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import StorageError, UsageError
from vidpipe.loader.reading.buffers import aligned
from vidpipe.spawn import shared_file

ADDRESSES = 1 << 40  # bytes of address space; memory is taken by what is written only

PageLock = Callable[[NDArray[np.uint8]], Callable[[], None]]


class SharedMemory:
    """A file in memory, of which parts are handed out. Any number of threads may ask.

    Args:
        lock: locks the pages of each part, and gives what undoes that.

    Raises:
        UsageError: the system doesn't allow so large a file or mapping.
    """

    def __init__(self, lock: PageLock | None = None) -> None:
        self._file = shared_file("vidpipe-frames")
        self._lock = lock
        self._end = 0
        self._free: dict[int, list[int]] = {}  # offsets of parts that are gone, by their room
        self._taking = threading.Lock()
        try:
            os.ftruncate(self.descriptor, ADDRESSES)
            self._mapped = _mapped(self.descriptor)
        except OSError as error:
            self.close()
            raise UsageError(
                f"readers: {ADDRESSES >> 30} GB of addresses for what processes read can't be had ({error.strerror}), though only what "
                "is in use takes memory: raise the limit (`ulimit -v` for addresses, `-f` for files), or take readers='threads'"
            ) from error
        self._whole = np.frombuffer(self._mapped, np.uint8)

    @property
    def descriptor(self) -> int:
        """Of the file, for other processes."""
        return self._file.fileno()

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes: zeros, or, where the system can't give memory back, what was there before. The
        memory is free again when the array is gone.

        Raises:
            StorageError: more is in use than there are addresses. Besides what `lock` raises.
        """
        whole = max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
        room = 1 << (whole - 1).bit_length()  # addresses: so parts of nearly one size can follow each other there
        with self._taking:
            if free := self._free.get(room):
                offset = free.pop()
            elif self._end + room <= ADDRESSES:
                offset = self._end
                self._end += room
            else:
                raise StorageError(
                    f"readers: batches that are in use take more than {ADDRESSES >> 30} GB; keep fewer of them"
                )
        memory = np.frombuffer(self._mapped, np.uint8, whole, offset)
        try:
            unlock = self._lock(memory) if self._lock else None
        except BaseException:
            self._free.setdefault(room, []).append(offset)
            raise
        place = slice(offset, offset + whole)
        weakref.finalize(memory, self._release, place, room, unlock, os.getpid()).atexit = False
        return memory[:size]

    def offset(self, memory: NDArray[np.uint8]) -> int:
        """Where memory that was handed out begins in the file."""
        return int(memory.ctypes.data - self._whole.ctypes.data)

    def close(self) -> None:
        """Hand out nothing more; what was stays."""
        self._file.close()

    def _release(self, place: slice, room: int, unlock: Callable[[], None] | None, process: int) -> None:
        """Of a part that is gone; takes no lock, as garbage may be collected while this thread holds it."""
        if os.getpid() != process:
            return  # a fork, whose parent still has it
        try:
            if unlock:
                unlock()
        finally:
            with suppress(AttributeError, OSError):  # else it is overwritten next time
                self._mapped.madvise(mmap.MADV_REMOVE, place.start, place.stop - place.start)
            self._free.setdefault(room, []).append(place.start)


def mapped_memory(descriptor: int) -> NDArray[np.uint8]:
    """All of the same file in another process: flat uint8."""
    return np.frombuffer(_mapped(descriptor), np.uint8)


def _mapped(descriptor: int) -> mmap.mmap:
    """Left out of core dumps, for which Linux would take memory for every page, used or not, and keep it while the file is open."""
    memory = mmap.mmap(descriptor, ADDRESSES)
    with suppress(AttributeError):  # other systems have no such advice
        memory.madvise(mmap.MADV_DONTDUMP)
    return memory


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
