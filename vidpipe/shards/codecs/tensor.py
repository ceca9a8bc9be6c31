"""`tensor`: the clip as an .npy array [T, H, W, 3], uncompressed, RGB.

The frames lie one after the other behind a header of fixed size, so any of them can be read alone.

- dtype uint8: the affine form of the normalised clip tensor: normalised = (u8 / 255 - mean) / std with the manifest's mean and
  std, which is exact for 8-bit video;
- dtype float16: the normalised values themselves, rounded to float16, for readers that want no arithmetic. Each of the 256
  levels keeps a value of its own, so the 8-bit frames can be had back exactly, and `decode` gives them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError
from vidpipe.shards.checksum import Buffer, crc32
from vidpipe.shards.codecs.base import Codec, CodecSpec, EncodedClip, EncodedMember, Frames, Part

HEADER_BYTES = 128


class TensorCodec(Codec):
    """Uncompressed 8-bit frames: the fastest to read, the largest on disk but for float16."""

    raw_parts: ClassVar[bool] = True
    summary: ClassVar[str] = "uncompressed frames (.npy); the fastest to load, 3.7 MB for 16 frames at 320x240 (uint8)"
    dtype: ClassVar[np.dtype[Any]] = np.dtype("|u1")

    def encode(self, video: Frames) -> EncodedClip:
        """Header and frames, without a copy of 8-bit frames; one checksum a frame."""
        frames = self._to_stored(np.ascontiguousarray(video))
        return EncodedClip(
            members=(EncodedMember("npy", (npy_header(frames.shape, self.dtype), frames.data.cast("B"))),),
            crc32=tuple(crc32(frame.data) for frame in frames),
        )

    def extensions(self, frames: int) -> list[str]:
        """One file."""
        return ["npy"]

    def decode(self, members: Sequence[Buffer]) -> Frames:
        """All frames; 8-bit ones as a view into the payload's one file."""
        view = memoryview(members[0])
        with io.BytesIO(view[:HEADER_BYTES]) as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("not an .npy file of version 1.0")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if fortran or dtype != self.dtype or len(shape) != 4 or shape[3] != 3 or stream.tell() != HEADER_BYTES:
                raise ValueError(f"expected a C-ordered {self.dtype} array [T, H, W, 3], got {dtype} {list(shape)}")
        expected = int(np.prod(shape)) * self.dtype.itemsize
        if len(view) - HEADER_BYTES != expected:
            raise ValueError(f"header says {list(shape)}, but {len(view) - HEADER_BYTES} bytes follow")
        content = np.frombuffer(view[HEADER_BYTES:], self.dtype) if expected else np.empty(0, self.dtype)
        return self._to_frames(content.reshape(shape))

    def parts(self, shape: tuple[int, int, int], sizes: Sequence[int], frames: Sequence[int]) -> list[Part]:
        """One part a frame."""
        size = shape[1] * shape[2] * 3 * self.dtype.itemsize
        return [Part(0, HEADER_BYTES + frame * size, size, crc32_index=frame) for frame in frames]

    def decode_parts(self, parts: Sequence[Buffer], frames: Sequence[int], out: Frames) -> None:
        """Frame by frame."""
        for part, frame in zip(parts, out, strict=True):
            frame[...] = self._to_frames(np.frombuffer(part, self.dtype).reshape(frame.shape))

    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Compares the header and every frame's checksum."""
        return is_intact(members[0], (*shape, 3), self.dtype, checksums)

    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """Exact for the given size."""
        return HEADER_BYTES + frames * height * width * 3 * self.dtype.itemsize

    def _to_stored(self, frames: Frames) -> NDArray[Any]:
        return frames

    def _to_frames(self, stored: NDArray[Any]) -> Frames:
        return stored


class Float16TensorCodec(TensorCodec):
    """Normalised frames in float16: twice the bytes."""

    raw_parts: ClassVar[bool] = False
    dtype: ClassVar[np.dtype[Any]] = np.dtype("<f2")

    def __init__(self, spec: CodecSpec) -> None:
        super().__init__(spec)
        if spec.mean is None or spec.std is None:
            raise UsageError("codec tensor, dtype float16: needs the mean and std that it is normalised by")
        levels = (np.arange(256)[:, None] / 255 - np.array(spec.mean)) / np.array(spec.std)
        with np.errstate(over="ignore"):
            self._values: NDArray[np.float16] = levels.astype(self.dtype).T.copy()
        if not all(np.isfinite(channel).all() and len(np.unique(channel)) == 256 for channel in self._values):
            raise UsageError(
                f"dtype float16: mean {spec.mean} and std {spec.std} don't leave each of the 256 levels a value of its own; "
                "take dtype uint8"
            )
        self._levels = np.zeros((3, 1 << 16), np.uint8)
        for levels_of, values in zip(self._levels, self._values, strict=True):
            levels_of[values.view(np.uint16)] = np.arange(256)

    def _to_stored(self, frames: Frames) -> NDArray[Any]:
        stored = np.empty(frames.shape, self.dtype)
        for channel, values in enumerate(self._values):
            stored[..., channel] = values[frames[..., channel]]
        return stored

    def _to_frames(self, stored: NDArray[Any]) -> Frames:
        frames = np.empty(stored.shape, np.uint8)
        for channel, levels in enumerate(self._levels):
            frames[..., channel] = levels[stored[..., channel].view(np.uint16)]
        return frames


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The .npy 1.0 header of a C-ordered array: 128 bytes for every shape that occurs here."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    content = stream.getvalue()
    if len(content) != HEADER_BYTES:
        raise ValueError(f"the header of shape {list(shape)} takes {len(content)} bytes, expected {HEADER_BYTES}")
    return content


def is_intact(content: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any], checksums: Sequence[int]) -> bool:
    """Whether a file is, byte for byte, that of an array whose frames, along its first axis, have these CRC-32."""
    view, size = memoryview(content), math.prod(shape[1:]) * dtype.itemsize
    starts = [HEADER_BYTES + frame * size for frame in range(shape[0])]
    return (
        len(view) == HEADER_BYTES + shape[0] * size
        and bytes(view[:HEADER_BYTES]) == npy_header(shape, dtype)
        and [crc32(view[start : start + size]) for start in starts] == list(checksums)
    )
