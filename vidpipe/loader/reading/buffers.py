"""Memory that is used again: asking for fresh pages for every clip costs as much as reading it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

# In bytes. The kernel takes a third longer to copy what it reads to addresses that are only multiples of 16.
ALIGNMENT = 64


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_array(size: int) -> NDArray[np.uint8]:
    """Flat memory of `size` bytes with arbitrary content, which begins at a multiple of ALIGNMENT.

    numpy asks for huge pages where the system has them, torch doesn't: they are written to a third faster.
    """
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]


class BufferPool:
    """Memory that is handed out again once the array that was given, and every view of it, is gone.

    Args:
        allocate: gives a flat uint8 array of so many bytes.
        most: arrays that are kept while nobody has them.
        step: sizes are rounded up to a multiple, so that arrays of many sizes can stand in for each other.
    """

    def __init__(
        self, allocate: Callable[[int], NDArray[np.uint8]] = aligned_array, *, most: int = 8, step: int = 1
    ) -> None:
        self._allocate, self._step = allocate, step
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=most)

    def take(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes with arbitrary content, aligned. It goes back by itself."""
        memory = self._used_before(size)
        if memory is None:
            memory = self._allocate(-(-size // self._step) * self._step)
        lease = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lease, self._free.append, memory)
        return lease[:size]

    def _used_before(self, size: int) -> NDArray[np.uint8] | None:
        """The last one used that is large enough, as most of it is still in the cache; smaller ones are dropped."""
        with suppress(IndexError):  # two threads may ask at once
            while True:
                memory = self._free.pop()
                if memory.nbytes >= size:
                    return memory
        return None
