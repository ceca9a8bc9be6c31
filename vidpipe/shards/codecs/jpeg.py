"""`jpeg`: one JPEG file a frame, about 1/16 of the bytes of `tensor`; any frame can be read and decoded alone.

A filmstrip (all frames in one tall JPEG) saves some decoding time when all of it is wanted, but has to be decoded whole; see
docs/benchmarks.md for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vidpipe.shards.checksum import Buffer, crc32
from vidpipe.shards.codecs.base import Codec, EncodedClip, EncodedMember, Frames, Part

DEFAULT_QUALITY = 90
_END = b"\xff\xd9"  # the marker EOI
_NOMINAL_BITS_PER_PIXEL = 1.5  # of quality 90, 4:2:0, on Kinetics-like video
_BITS_BY_QUALITY = ((1, 50, 75, 90, 95, 100), (0.1, 0.46, 0.65, 1.0, 1.43, 2.6))  # as multiples of those of quality 90


class JpegCodec(Codec):
    """Each frame as a baseline JPEG with 4:2:0 chroma."""

    summary: ClassVar[str] = "one JPEG a frame (quality option, 90 by default); about 1/16 of the bytes of tensor"

    def encode(self, video: Frames) -> EncodedClip:
        """One file and one checksum a frame."""
        frames = [
            simplejpeg.encode_jpeg(frame, quality=self.spec.quality or DEFAULT_QUALITY, colorsubsampling="420")
            for frame in np.ascontiguousarray(video)
        ]
        return EncodedClip(
            members=tuple(
                EncodedMember(name, (f,)) for name, f in zip(self.extensions(len(frames)), frames, strict=True)
            ),
            crc32=tuple(crc32(frame) for frame in frames),
        )

    def extensions(self, frames: int) -> list[str]:
        """One file a frame, numbered."""
        return [f"{number:04d}.jpg" for number in range(frames)]

    def decode(self, members: Sequence[Buffer]) -> Frames:
        """All frames."""
        height, width, _, _ = _header(members[0])
        video = np.empty((len(members), height, width, 3), np.uint8)
        self.decode_parts(members, range(len(members)), video)
        return video

    def parts(self, shape: tuple[int, int, int], sizes: Sequence[int], frames: Sequence[int]) -> list[Part]:
        """One part a frame: its file."""
        return [Part(frame, 0, int(sizes[frame]), crc32_index=frame) for frame in frames]

    def decode_parts(self, parts: Sequence[Buffer], frames: Sequence[int], out: Frames) -> None:
        """Decodes frame by frame, into its place."""
        for part, frame in zip(parts, out, strict=True):
            _decode_into(part, frame)

    def check_parts(self, parts: Sequence[Buffer], frame_shape: tuple[int, int]) -> None:
        """Header, size and end of each file.

        DALI 2.4 ended the process with a segmentation fault in one of some thirty batches with a file that it couldn't parse.
        """
        for part in parts:
            _check_size(part, frame_shape)
            if bytes(part[-2:]) != _END:
                raise ValueError("a frame's JPEG has no end")

    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Compares every file's checksum."""
        return len(members) == shape[0] and [crc32(member) for member in members] == list(checksums)

    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """What such frames take on average."""
        bits = _NOMINAL_BITS_PER_PIXEL * float(np.interp(self.spec.quality or DEFAULT_QUALITY, *_BITS_BY_QUALITY))
        return round(frames * height * width * bits / 8)


def _decode_into(content: Buffer, frame: NDArray[np.uint8]) -> None:
    try:
        decoded = simplejpeg.decode_jpeg(content, "RGB", buffer=frame)
    except ValueError:
        _check_size(content, (frame.shape[0], frame.shape[1]))  # one that is larger than the buffer
        raise
    if decoded.shape != frame.shape:
        _check_size(content, (frame.shape[0], frame.shape[1]))


def _check_size(content: Buffer, expected: tuple[int, int]) -> None:
    height, width, _, _ = _header(content)
    if (height, width) != expected:
        raise ValueError(f"a frame decodes to {width}x{height}, expected {expected[1]}x{expected[0]}")


def _header(content: Buffer) -> tuple[int, int, str, str]:
    """Height, width, colour space and subsampling."""
    header: tuple[int, int, str, str] = simplejpeg.decode_jpeg_header(content)
    return header
