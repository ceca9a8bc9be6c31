"""What is stored of a sample, read but not decoded: for decoders on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.reading.filmstrip import Filmstrip, fresh_memory, join_frames
from vidpipe.shards.codecs.base import Frames


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What holds some frames of a sample.

    Attributes:
        codec: name of the codec.
        parts: encoded bytes, as `Codec.parts` orders them; empty for `jpeg`.
        strips: for `jpeg`, its filmstrips.
        frames: their numbers in the stored clip.
        shape: (T, H, W, 3) of what they decode to.
    """

    codec: str
    parts: Sequence[memoryview]
    frames: Sequence[int]
    shape: tuple[int, int, int, int]
    strips: Sequence[Filmstrip] = ()


def as_stored(
    codec: str,
    parts: Sequence[memoryview],
    frames: Sequence[int],
    shape: tuple[int, int, int, int],
    *,
    memory: Callable[[int], memoryview] = fresh_memory,
    join: bool = True,
) -> Stored:
    """What was read, as a device's decoder wants it.

    Args:
        memory: gives so many bytes.
        join: the frames of `jpeg` to filmstrips. Not where a batch decides which frames are read together: the outermost lines
            of neighbours have a little of each other's colours.
    """
    if codec != "jpeg":
        return Stored(codec, parts, frames, shape)
    lines = shape[1]
    strips = join_frames(parts, lines=lines, memory=memory) if join else [Filmstrip(part, 1, lines) for part in parts]
    return Stored(codec, (), frames, shape, strips)


class StoredSource(Protocol):
    """What is read from, by any number of threads at once; see `ClipReader.read`."""

    def codec_of(self, sample: int) -> str:
        """Name of the codec that a sample is stored with."""

    def stored_bytes(self, sample: int, frames: Sequence[int]) -> int:
        """Bytes that what holds some frames of a sample takes at most."""

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """Some frames of a sample, in `out`."""

    def read_stored(self, sample: int, frames: Sequence[int]) -> Stored:
        """What holds them."""
