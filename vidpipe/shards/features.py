"""Feature shards: samples whose payload is KEY.npy, an array [T, D] of what a frozen backbone makes of each stored frame.

The arrays are little-endian and C-ordered behind a header of fixed size, so that any frames can be read alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vidpipe.shards.checksum import Buffer, crc32
from vidpipe.shards.codecs.tensor import HEADER_BYTES, is_intact, npy_header

FeatureDtype = Literal["float16", "float32"]


class FeatureSpec(BaseModel):
    """How features were made of frames; stored in the manifest.

    Attributes:
        backbone: timm's name for the model.
        weights: fingerprint of the backbone's weights.
        width: D, features of a frame.
        dtype: of the stored values.
        size: side in pixels of the squares that the backbone was given, normalised as the manifest says.
        crops: squares along the longer side of the frames, each a sample of its own; 1 is the centre.
        source: fingerprint of the shards that the frames are from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    weights: str
    width: int
    dtype: FeatureDtype
    size: int
    crops: int
    source: str


class FeatureFormat:
    """Features to payload and back."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._width = spec.width
        self._dtype: np.dtype[Any] = np.dtype({"float16": "<f2", "float32": "<f4"}[spec.dtype])

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame's features."""
        return self._width * self._dtype.itemsize

    def encode(self, features: NDArray[np.float32]) -> tuple[bytes, tuple[int, ...]]:
        """The payload of features [T, D], and the CRC-32 of each frame's.

        Raises:
            ValueError: they aren't of that width, or a value is not finite in the stored type.
        """
        if features.ndim != 2 or features.shape[1] != self._width:
            raise ValueError(f"expected features [T, {self._width}], got {list(features.shape)}")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features.astype(self._dtype))
        if not np.isfinite(stored).all():
            raise ValueError(f"values up to {np.abs(features).max():g} are not finite as {self._dtype}")
        return npy_header(stored.shape, self._dtype) + stored.tobytes(), tuple(crc32(frame.data) for frame in stored)

    def offset(self, frame: int) -> int:
        """Where a frame's features begin in the payload."""
        return HEADER_BYTES + frame * self.frame_bytes

    def rows(self, content: Buffer) -> NDArray[Any]:
        """Features [N, D] of N frames' bytes."""
        return np.frombuffer(content, self._dtype).reshape(-1, self._width)

    def extensions(self, frames: int) -> list[str]:
        """One file."""
        return ["npy"]

    def expected_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """[T, D] of a sample whose frames were T x H x W."""
        return shape[0], self._width

    def decoded_shape(self, members: Sequence[Buffer]) -> tuple[int, ...]:
        """The shape of a payload's array, all values of which are looked at.

        Raises:
            ValueError: it is no such array, or a value is not finite.
        """
        with io.BytesIO(members[0]) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        if array.dtype != self._dtype:
            raise ValueError(f"expected {self._dtype}, got {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError("a value is not finite")
        return tuple(array.shape)

    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Compares the header and every frame's checksum."""
        return is_intact(members[0], (shape[0], self._width), self._dtype, checksums)
