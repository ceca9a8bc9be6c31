"""What the backends share: requests in, batches out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vidpipe.loader.request import Request
from vidpipe.shards.manifest import Normalization

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What a backend has to know.

    Attributes:
        num_frames: of a clip.
        size: side of the model's input in pixels.
        dtype: of the batches: float32, float16 or bfloat16.
        device: where batches are wanted.
        max_batch_size: of any batch, in clips.
        threads: that the backend may use beside those that read.
        warps, recolors: whether clips may come with a warp, and with a change of colours.
    """

    num_frames: int
    size: int
    normalization: Normalization
    dtype: torch.dtype
    device: torch.device
    max_batch_size: int
    threads: int
    warps: bool
    recolors: bool


@dataclass(frozen=True, slots=True, eq=False)
class Made(Generic[T]):
    """What became of a batch.

    Attributes:
        value: what was made of its clips.
        ready: after which all of it is whole, where the device may still be at work on it on another stream.
    """

    value: T
    ready: torch.cuda.Event | None = None


Complete = Callable[[Sequence[Request], Tensor], T]
"""From the requests that were served in the end, and their clips, [B, 3, T, size, size]."""


class Engine(ABC):
    """A backend: requests in, the model's input out. `start` returns at once; `finish` waits and may run in another thread.

    Attributes:
        decodes: names of the codecs whose samples it decodes itself, on its device.
    """

    decodes: frozenset[str] = frozenset()

    @abstractmethod
    def start(self, requests: Sequence[Request]) -> object:
        """Begin to read a batch."""

    @abstractmethod
    def finish(self, started: object, complete: Complete[T]) -> Made[T]:
        """Wait for it.

        Args:
            complete: makes of it what is wanted; what it queues on the current stream is whole when the clips are.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the backend holds."""
