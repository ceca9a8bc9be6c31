"""Decoding while training as trainers commonly did it: with decord at the video's own size, without any help from prep."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.loader.arms.base import Job
from vidpipe.bench.loader.arms.on_the_fly import OnTheFlyArm, SourceClip
from vidpipe.video.decord_library import load_decord


class DecordIndicesFirstArm(OnTheFlyArm):
    """Only the clip's frames are asked for."""

    title: ClassVar[str] = "decord, indices first"
    about: ClassVar[str] = (
        "A decord.VideoReader for each sample in `workers` DataLoader workers: get_batch of the clip's frames at the video's own "
        "size; torchvision's v2 transforms on uint8."
    )
    jobs: ClassVar[frozenset[Job]] = frozenset({"train"})
    whole_frames: ClassVar[bool] = True

    @classmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """By `get_batch`, which seeks."""
        reader = load_decord().VideoReader(str(clip.path), num_threads=1)
        return cast("NDArray[np.uint8]", reader.get_batch(clip.frame_indices).asnumpy())


class DecordAllFramesArm(DecordIndicesFirstArm):
    """All frames are read, and the clip's are taken from them."""

    title: ClassVar[str] = "decord, all frames first"
    about: ClassVar[str] = (
        "A decord.VideoReader for each sample in `workers` DataLoader workers: get_batch of all frames at the video's own size, "
        "of which the clip's are then taken; torchvision's v2 transforms on uint8."
    )

    @classmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """All of the video."""
        reader = load_decord().VideoReader(str(clip.path), num_threads=1)
        frames: NDArray[np.uint8] = reader.get_batch(range(len(reader))).asnumpy()
        return frames[clip.frame_indices]
