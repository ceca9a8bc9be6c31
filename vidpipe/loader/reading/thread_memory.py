"""Tensors that a thread uses again, call after call."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor


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
