"""Where the samples of a split lie: all that reading them asks of the index."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLocations:
    """One entry a sample. Shapes, offsets, sizes and starts are whole numbers of as few bits as all of them need: what
    is computed with them has to be Python's, or of 64 bits.

    Attributes:
        shards: file names, in the manifest's order; `shard`, int32 [N], indexes them.
        shape: [N, 3]: T, H, W of the stored clip.
        offset: [N], in bytes: of the payload's first byte in its shard.
        size: in bytes: the sizes of all samples' payload files one after the other; those of sample i are
            size[size_start[i]:size_start[i+1]].
        crc32: uint32, all samples' checksums one after the other; those of sample i are crc32[crc_start[i]:crc_start[i+1]].
    """

    shards: tuple[str, ...]
    shard: NDArray[np.int32]
    shape: NDArray[Any]
    offset: NDArray[Any]
    size: NDArray[Any]
    size_start: NDArray[Any]
    crc32: NDArray[np.uint32]
    crc_start: NDArray[Any]

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, sample: int) -> str:
        """What errors call it."""
        return f"number {sample}"

    def shape_of(self, sample: int) -> tuple[int, int, int]:
        """T, H, W of a sample's stored clip."""
        length, height, width = self.shape[sample].tolist()
        return length, height, width

    def frame_bytes(self, sample: int) -> int:
        """Bytes of one of a sample's frames, decoded."""
        _, height, width = self.shape_of(sample)
        return height * width * 3

    @property
    def max_frame_bytes(self) -> int:
        """Bytes of the largest frame."""
        return int((self.shape[:, 1].astype(np.int64) * self.shape[:, 2]).max()) * 3

    def places(self) -> SampleLocations:
        """These alone, without what else an index knows."""
        return SampleLocations(**{field.name: getattr(self, field.name) for field in fields(SampleLocations)})
