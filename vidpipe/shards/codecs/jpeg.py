"""`jpeg`: one JPEG file a frame, about 1/16 of the bytes of `tensor`; any frame can be read and decoded alone.

A filmstrip (all frames in one tall JPEG) saves some decoding time when all of it is wanted, but has to be decoded whole; see
docs/benchmarks.md for both.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from vidpipe.shards.codecs.base import Buffer, Codec, EncodedClip, EncodedMember, Frames, Part

DEFAULT_QUALITY = 90
_NOMINAL_BITS_PER_PIXEL = 1.5  # of quality 90, 4:2:0, on Kinetics-like video


class JpegCodec(Codec):
    """Each frame as a baseline JPEG with 4:2:0 chroma."""

    summary: ClassVar[str] = "one JPEG a frame (quality option, 90 by default); about 1/16 of the bytes of tensor"

    def encode(self, video: Frames) -> EncodedClip:
        """One file and one checksum a frame."""
        frames = [_to_jpeg(frame, self.spec.quality or DEFAULT_QUALITY) for frame in video]
        return EncodedClip(
            members=tuple(
                EncodedMember(name, (f,)) for name, f in zip(self.extensions(len(frames)), frames, strict=True)
            ),
            crc32=tuple(zlib.crc32(frame) for frame in frames),
        )

    def extensions(self, frames: int) -> list[str]:
        """One file a frame, numbered."""
        return [f"{number:04d}.jpg" for number in range(frames)]

    def decode(self, members: Sequence[Buffer]) -> Frames:
        """All frames."""
        return np.stack([_from_jpeg(member) for member in members])

    def parts(self, shape: tuple[int, int, int], sizes: Sequence[int], frames: Sequence[int]) -> list[Part]:
        """One part a frame: its file."""
        return [Part(frame, 0, int(sizes[frame]), crc32_index=frame) for frame in frames]

    def decode_parts(self, parts: Sequence[Buffer], out: Frames) -> None:
        """Decodes frame by frame."""
        for part, frame in zip(parts, out, strict=True):
            decoded = _from_jpeg(part)
            if decoded.shape != frame.shape:
                raise ValueError(f"a frame decodes to {list(decoded.shape)}, expected {list(frame.shape)}")
            frame[...] = decoded

    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], crc32: Sequence[int]) -> bool:
        """Compares every file's checksum."""
        return len(members) == shape[0] and [zlib.crc32(member) for member in members] == list(crc32)

    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """What such frames take on average."""
        return round(frames * height * width * _NOMINAL_BITS_PER_PIXEL / 8)


def _to_jpeg(frame: Frames, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def _from_jpeg(content: Buffer) -> Frames:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"not a JPEG that can be decoded: {error}") from error
