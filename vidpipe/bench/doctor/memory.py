"""Clips in memory, for stages that are measured without the reading before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.reading.stored import Stored, as_stored
from vidpipe.shards.codecs.base import Frames


class MemorySource:
    """A source of clips that are in memory already, all of them whole.

    Args:
        codec: name of that of all.
        clips: of each its sample in the index it is from, and which frames of that.
        frames: of each, uint8 [T, H, W, 3].
        parts: of each what is stored of these frames.
    """

    def __init__(
        self,
        codec: str,
        clips: Sequence[tuple[int, list[int]]],
        frames: Sequence[Frames],
        parts: Sequence[list[memoryview]],
    ) -> None:
        self._codec, self._clips, self._frames, self._parts = codec, clips, frames, parts

    def codec_of(self, sample: int) -> str:
        """That of all."""
        return self._codec

    def stored_bytes(self, sample: int, frames: Sequence[int]) -> int:
        """Of the parts that there are."""
        return sum(part.nbytes for part in self._parts[sample])

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """The clip, copied."""
        clip = self._frames[sample]
        video = out[: clip.nbytes].reshape(clip.shape)
        np.copyto(video, clip)
        return video

    def read_stored(self, sample: int, frames: Sequence[int]) -> Stored:
        """The clip as it is stored."""
        length, height, width, _ = self._frames[sample].shape
        return as_stored(self._codec, self._parts[sample], self._clips[sample][1], (length, height, width, 3))
