"""What every codec does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Frames = NDArray[np.uint8]


class CodecSpec(BaseModel):
    """Which codec, with its parameters; stored in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tensor"
    dtype: Literal["uint8"] = "uint8"


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A payload, in pieces that are written one after the other, and the checksums of the parts that can be read alone.

    Attributes:
        pieces: buffers whose concatenation is the payload.
        crc32: one zlib CRC-32 for each part, in order; which parts there are is the codec's matter.
    """

    pieces: tuple[bytes | memoryview, ...]
    crc32: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(memoryview(piece).nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the payload that can be read, checked and decoded alone.

    Attributes:
        offset: from the payload's start, in bytes.
        size: in bytes.
        crc32_index: which of the payload's checksums covers it.
    """

    offset: int
    size: int
    crc32_index: int


class Codec(ABC):
    """Frames to payload and back. Frames are uint8 [T, H, W, 3], RGB."""

    extension: ClassVar[str]
    summary: ClassVar[str]

    def __init__(self, spec: CodecSpec) -> None:
        self.spec = spec

    @abstractmethod
    def encode(self, video: Frames) -> EncodedClip:
        """The payload of a clip."""

    @abstractmethod
    def decode(self, payload: bytes | memoryview) -> Frames:
        """All frames of a payload.

        Raises:
            ValueError: the payload is not one of this codec's.
        """

    @abstractmethod
    def parts(self, shape: tuple[int, int, int], frames: Sequence[int]) -> list[Part]:
        """What to read for some frames of a clip of `shape` (T, H, W), in the order of `frames`."""

    @abstractmethod
    def intact(self, payload: bytes | memoryview, shape: tuple[int, int, int], crc32: Sequence[int]) -> bool:
        """Whether a payload is, byte for byte, what `encode` gave for a clip of `shape` (T, H, W) with these checksums."""

    @abstractmethod
    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """Expected size of a payload, for planning."""
