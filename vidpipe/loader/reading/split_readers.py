"""Reads the samples of several splits, which are numbered one split after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.reading.buffers import BufferPool
from vidpipe.loader.reading.locations import SampleLocations
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.reading.stored import Stored, as_stored
from vidpipe.shards.codecs.base import Frames

KEPT_STRIPS = 256  # buffers of what a device has decoded, for what it is to decode next


class SplitReaders:
    """Random access to samples. Any number of threads may read at once.

    Args:
        readers: one for each split.
        places: of all samples.
        split_of_shard: which split each shard is of.
        codecs: names of the splits' codecs.
        join: the frames of `jpeg` to filmstrips, where they are not decoded; see `as_stored`.
    """

    def __init__(
        self,
        readers: Sequence[ClipReader],
        places: SampleLocations,
        split_of_shard: NDArray[np.int64],
        codecs: Sequence[str],
        *,
        join: bool,
    ) -> None:
        self._readers, self._places, self._codecs, self._join = readers, places, codecs, join
        self._split_of_shard = split_of_shard
        self._memory = BufferPool(most=KEPT_STRIPS, step=1 << 16)

    def split_number(self, sample: int) -> int:
        """Which split a sample is of."""
        return int(self._split_of_shard[self._places.shard[sample]])

    def codec_of(self, sample: int) -> str:
        """Name of the codec that a sample is stored with."""
        return self._codecs[self.split_number(sample)]

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """Some frames of a sample's clip; see `ClipReader.read`."""
        return self._readers[self.split_number(sample)].read(sample, frames, out)

    def read_stored(self, sample: int, frames: Sequence[int]) -> Stored:
        """What holds them, not decoded; raises as `read`."""
        parts = self._readers[self.split_number(sample)].read_parts(sample, frames)
        _, height, width = self._places.shape_of(sample)
        shape = (len(frames), height, width, 3)
        codec, room = self.codec_of(sample), self._memory
        return as_stored(codec, parts, frames, shape, memory=lambda n: room.take(n).data, join=self._join)

    @property
    def bytes_read(self) -> int:
        """From the shards, as they are stored."""
        return sum(reader.bytes_read for reader in self._readers)

    def close(self) -> None:
        """Close all shards."""
        for reader in self._readers:
            reader.close()
