"""Memory that is used again: asking for fresh pages for every clip costs as much as reading it."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# In bytes. The kernel takes a third longer to copy what it reads to addresses that are only multiples of 16.
ALIGNMENT = 64


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class BufferPool:
    """Memory that is handed out again once the array that was given, and every view of it, is gone.

    Args:
        pinned: page-locked, so that a GPU can fetch from it by itself.
        most: arrays that are kept while nobody has them.
        step: sizes are rounded up to a multiple, so that arrays of many sizes can stand in for each other.
    """

    def __init__(self, *, pinned: bool = False, most: int = 8, step: int = 1) -> None:
        self._pinned, self._step = pinned, step
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=most)

    def take(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes with arbitrary content, aligned. It goes back by itself."""
        memory = self._used_before(size)
        if memory is None:
            # numpy asks for huge pages where the system has them, torch doesn't: they are written to a third faster.
            whole = -(-size // self._step) * self._step
            memory = _pinned_array(whole) if self._pinned else aligned_array(whole)
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


def _pinned_array(size: int) -> NDArray[np.uint8]:
    memory: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True).numpy()
    return memory


def aligned_array(size: int) -> NDArray[np.uint8]:
    """Flat memory of `size` bytes with arbitrary content, which begins at a multiple of ALIGNMENT."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]


class ThreadMemory(threading.local):
    """Working memory, each thread's its own, by name; what was taken is valid until that name is taken again."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """A contiguous tensor with arbitrary content, on the CPU unless told; of a name, always of the same type and device."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = torch.empty(size, dtype=dtype, device=device or "cpu")
        return held[:size].view(shape)
