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
Buffer = bytes | bytearray | memoryview


class CodecSpec(BaseModel):
    """Which codec, with its parameters; stored in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tensor"
    dtype: Literal["uint8"] = "uint8"
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class EncodedMember:
    """One file of a sample's payload.

    Attributes:
        extension: what follows the key and a dot.
        pieces: buffers whose concatenation is its content.
    """

    extension: str
    pieces: tuple[bytes | memoryview, ...]

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return sum(memoryview(piece).nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A payload, and the checksums of the parts that can be read alone.

    Attributes:
        members: the payload's files; sorted by extension they stand in the order of their content.
        crc32: one zlib CRC-32 for each part, in order; which parts there are is the codec's matter.
    """

    members: tuple[EncodedMember, ...]
    crc32: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(member.size for member in self.members)


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the payload that can be read, checked and decoded alone.

    Attributes:
        member: number of the payload's file.
        offset: from that file's first byte, in bytes.
        size: in bytes.
        crc32_index: which of the payload's checksums covers it.
    """

    member: int
    offset: int
    size: int
    crc32_index: int


class Codec(ABC):
    """Frames to payload and back. Frames are uint8 [T, H, W, 3], RGB."""

    summary: ClassVar[str]
    raw_parts: ClassVar[bool] = False  # whether a part's bytes are the frame itself, so that it can be read into place

    def __init__(self, spec: CodecSpec) -> None:
        self.spec = spec

    @abstractmethod
    def encode(self, video: Frames) -> EncodedClip:
        """The payload of a clip."""

    @abstractmethod
    def extensions(self, frames: int) -> list[str]:
        """What the files of a clip of so many frames are called after the key and a dot, in order."""

    @abstractmethod
    def decode(self, members: Sequence[Buffer]) -> Frames:
        """All frames of a payload, given its files.

        Raises:
            ValueError: the payload is not one of this codec's.
        """

    @abstractmethod
    def parts(self, shape: tuple[int, int, int], sizes: Sequence[int], frames: Sequence[int]) -> list[Part]:
        """What to read for some frames of a clip, in the order of `frames`.

        Args:
            shape: T, H, W of the stored clip.
            sizes: of the payload's files, in bytes.
        """

    @abstractmethod
    def decode_parts(self, parts: Sequence[Buffer], out: Frames) -> None:
        """Decode what `parts` named into `out`, uint8 [len(parts), H, W, 3].

        Raises:
            ValueError: a part can't be decoded, or to another size.
        """

    @abstractmethod
    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], crc32: Sequence[int]) -> bool:
        """Whether a payload is, byte for byte, what `encode` gave for a clip of `shape` (T, H, W) with these checksums."""

    @abstractmethod
    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """Expected size of a payload, for planning."""
