"""What every codec does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vidpipe.shards.checksum import Buffer
from vidpipe.video.probe import VideoInfo
from vidpipe.video.spec import ClipSpec

Frames = NDArray[np.uint8]


class CodecSpec(BaseModel):
    """Which codec, with its parameters; stored in the manifest.

    Attributes:
        dtype: of `tensor`.
        quality: of `jpeg`, 1 to 100.
        crf: of `mp4`, x264's constant rate factor, 0 (lossless) to 51.
        mean, std: per channel (RGB), by which `tensor` of dtype float16 is normalised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tensor"
    dtype: Literal["uint8", "float16"] = "uint8"
    quality: int | None = None
    crf: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class EncodedMember:
    """One file of a sample's payload.

    Attributes:
        extension: what follows the key and a dot.
        pieces: buffers whose concatenation is its content.
    """

    extension: str
    pieces: tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A payload, and the checksums of the parts that can be read alone.

    Attributes:
        members: the payload's files; sorted by extension they stand in the order of their content.
        crc32: one zlib CRC-32 for each part, in order; which parts there are is the codec's matter.
    """

    members: tuple[EncodedMember, ...]
    crc32: tuple[int, ...]


class Part(NamedTuple):
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
    """Frames to payload and back. Frames are uint8 [T, H, W, 3], RGB.

    Attributes:
        summary: for `vidpipe list codecs`.
        whole_videos: a sample is a whole video, with as many frames as that has; such a codec is a `VideoCodec`.
        raw_parts: a part's bytes are the frame itself, so that it can be read into place.
    """

    summary: ClassVar[str]
    whole_videos: ClassVar[bool] = False
    raw_parts: ClassVar[bool] = False

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
        """What to read for some frames of a clip, in the order of `frames`; one part may serve them all.

        Args:
            shape: T, H, W of the stored clip.
            sizes: of the payload's files, in bytes.
        """

    @abstractmethod
    def decode_parts(self, parts: Sequence[Buffer], frames: Sequence[int], out: Frames) -> None:
        """Decode the content of what `parts` named for some frames.

        Args:
            frames: as they were given to `parts`.
            out: uint8 [len(frames), H, W, 3], is overwritten.

        Raises:
            ValueError: a part can't be decoded, or to another size.
        """

    def check_parts(self, parts: Sequence[Buffer], frame_shape: tuple[int, int]) -> None:  # noqa: B027
        """Refuse what another decoder than `decode_parts` mustn't be given, as far as can be told without decoding.

        Args:
            frame_shape: H, W of the stored clip.

        Raises:
            ValueError: a part is damaged, or holds frames of another size.
        """

    @abstractmethod
    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Whether a payload is, byte for byte, what `encode` gave for a clip of `shape` (T, H, W) with these checksums."""

    def expected_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """What `decoded_shape` gives for a sound payload of a clip of `shape` (T, H, W)."""
        return (*shape, 3)

    def decoded_shape(self, members: Sequence[Buffer]) -> tuple[int, ...]:
        """[T, H, W, 3] of a payload, all of which is decoded for it; raises as `decode`."""
        return self.decode(members).shape

    @abstractmethod
    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """Expected size of a payload, for planning."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedVideo:
    """A whole video as a payload.

    Attributes:
        payload: its files.
        info: the source's stream.
        shape: (T, H, W) of its frames.
        times_seconds: float64 [T], presentation times after the first frame.
    """

    payload: EncodedClip
    info: VideoInfo
    shape: tuple[int, int, int]
    times_seconds: NDArray[np.float64]


class VideoCodec(Codec):
    """A codec that stores whole videos, made from the source file itself."""

    whole_videos: ClassVar[bool] = True

    @abstractmethod
    def encode_file(self, path: Path, clip: ClipSpec) -> EncodedVideo:
        """The payload of a video.

        Args:
            clip: the size of its frames, and their rate where it is sampled by `fps`; all frames otherwise.

        Raises:
            VideoError: the video can't be used.
        """

    @abstractmethod
    def some_frames(self, payload: EncodedClip, *, step: int) -> Iterator[Frames]:
        """Every `step`-th frame, uint8 [1, H, W, 3], of a payload that is decoded to its end.

        Raises:
            ValueError: it can't be.
        """
