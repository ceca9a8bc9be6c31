"""Decoding while training with PyAV, FFmpeg's libraries for Python."""

from __future__ import annotations

from typing import ClassVar, cast

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.loader.arms.on_the_fly import OnTheFlyArm, SourceClip


class PyAvArm(OnTheFlyArm):
    """An `av.open` for each sample."""

    title: ClassVar[str] = "PyAV on the fly + DataLoader"
    about: ClassVar[str] = (
        "PyAV in `workers` DataLoader workers: decodes in one thread from the video's start to the clip's last frame and scales "
        "the clip's frames by swscale to the stored height; train: torchvision's v2 transforms on uint8."
    )

    @classmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """Counts frames from the first one on: PyAV can't seek to a frame's number."""
        width, height = clip.size
        wanted = set(clip.frame_indices)
        frames: dict[int, NDArray[np.uint8]] = {}
        with av.open(str(clip.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    picture = frame.reformat(width, height, "rgb24").to_ndarray()
                    frames[number] = cast("NDArray[np.uint8]", picture)
                if len(frames) == len(wanted):
                    break
        return np.stack([frames[number] for number in clip.frame_indices])
