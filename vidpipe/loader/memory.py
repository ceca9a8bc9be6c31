"""Memory that is used again: asking for fresh pages for every clip costs as much as reading it."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class BufferPool:
    """Memory that is handed out again once the array that was given, and every view of it, is gone.

    Args:
        pinned: page-locked, so that a GPU can fetch from it by itself.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """A flat uint8 array of `size` bytes with arbitrary content. It goes back by itself."""
        memory = None
        for _ in range(len(self._free)):
            memory = self._free.pop()  # the last one used, of which most is still in the cache
            if memory.nbytes >= size:
                break
            memory = None
        if memory is None:
            # numpy asks for huge pages where the system has them, torch doesn't: they are written to a third faster.
            memory = (
                torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
                if self._pinned
                else np.empty(size, np.uint8)
            )
        lease = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lease, self._free.append, memory)
        return lease[:size]


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
        """A contiguous tensor with arbitrary content; of a name, always of the same type and device."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = torch.empty(size, dtype=dtype, device=device)
        return held[:size].view(shape)
