"""Decoding while training with torchcodec, PyTorch's own decoder."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder
from torchvision.transforms import v2

from vidpipe.bench.loader.arms.base import ArmSetup
from vidpipe.bench.loader.arms.on_the_fly import OnTheFlyArm, SourceClip


class TorchcodecArm(OnTheFlyArm):
    """A `torchcodec.decoders.VideoDecoder` for each sample."""

    title: ClassVar[str] = "torchcodec on the fly + DataLoader"
    about: ClassVar[str] = (
        "A torchcodec VideoDecoder for each sample in `workers` DataLoader workers: get_frames_at the stored clip's frames, "
        "scaled by its own resize to the stored height; train: torchvision's v2 transforms on uint8."
    )

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """It needs FFmpeg's shared libraries, which it loads with the first video."""
        reason = super().objection(setup)
        if not reason:
            try:
                cls.decode(cls.clips(setup)[0])
            except RuntimeError as error:
                reason = f"can't decode: {str(error).strip().splitlines()[0]} (it needs FFmpeg's shared libraries)"
        return reason

    @classmethod
    def suits(cls, clip: SourceClip) -> bool:
        """MPEG-4 in AVI is left out: torchcodec 0.17 gives other frames than those with the numbers that are asked for."""
        return not (clip.codec == "mpeg4" and clip.path.suffix.lower() == ".avi")

    @classmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """By `get_frames_at`; the times of all frames are read first (`seek_mode="exact"`)."""
        width, height = clip.size
        decoder = VideoDecoder(
            str(clip.path), dimension_order="NHWC", num_ffmpeg_threads=1, transforms=[v2.Resize((height, width))]
        )
        return cast("NDArray[np.uint8]", decoder.get_frames_at(clip.frame_indices).data.numpy())
