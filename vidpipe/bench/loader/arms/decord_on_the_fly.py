"""Decoding while training, the way of the trainers that prepared shards replace: decord in DataLoader workers."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.loader.arms.on_the_fly import OnTheFlyArm, SourceClip
from vidpipe.video.decord_library import load_decord


class DecordArm(OnTheFlyArm):
    """A `decord.VideoReader` for each sample."""

    title: ClassVar[str] = "decord on the fly + DataLoader"
    about: ClassVar[str] = (
        "A decord.VideoReader for each sample in `workers` DataLoader workers: get_batch of the stored clip's frames, resized "
        "by decord to the stored height; train: torchvision's v2 transforms on uint8."
    )

    @classmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """By `get_batch`, which seeks; scaled by decord."""
        width, height = clip.size
        reader = load_decord().VideoReader(str(clip.path), width=width, height=height, num_threads=1)
        return cast("NDArray[np.uint8]", reader.get_batch(clip.frame_indices).asnumpy())
