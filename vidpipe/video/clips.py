"""Clips of frames, and the buffers into which decoders write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.probe import VideoInfo
from vidpipe.video.sampling import ClipPlan

Allocate = Callable[[int], NDArray[np.uint8]]
"""Memory of so many bytes: uint8 [bytes], of any content."""


def private_memory(size: int) -> NDArray[np.uint8]:
    """Memory of this process alone."""
    return np.empty(size, np.uint8)


class DecodingStoppedError(Exception):
    """A decoder gave up; it may have met damage that the wanted frames need, or run into some that follows them."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of one clip.

    Attributes:
        video: uint8 [T, H, W, 3], RGB, C-contiguous, upright.
        frame_indices: int64 [T], positions among the video's frames in presentation order.
        times_seconds: float64 [T], presentation times after the video's first frame.
        padded_frames: how many of them repeat another because the video is too short.
    """

    video: NDArray[np.uint8]
    frame_indices: NDArray[np.int64]
    times_seconds: NDArray[np.float64]
    padded_frames: int


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """All clips of one video.

    Attributes:
        info: the video stream.
        decoder: `pyav`, `decord` or `ffmpeg`, whichever it was given to.
        clips: in the order of their numbers.
    """

    info: VideoInfo
    decoder: str
    clips: tuple[Clip, ...]


class ClipBuffers:
    """The clips' arrays while a decoder fills them: each decoded frame is written once and copied to its other places.

    Args:
        plans: which frames the clips hold.
        size: width and height of the clips.
        allocate: gives the memory that the frames of all clips are written to.

    Attributes:
        size: width and height of the clips.
        wanted: the distinct frames that are needed, ascending.
    """

    def __init__(self, plans: Sequence[ClipPlan], size: tuple[int, int], allocate: Allocate) -> None:
        width, height = size
        self.size = size
        self._plans = plans
        ends = np.cumsum([len(plan.frame_indices) for plan in plans]).tolist()
        frames = allocate(ends[-1] * height * width * 3).reshape(ends[-1], height, width, 3)
        self._videos = np.split(frames, ends[:-1])
        self._places: dict[int, list[NDArray[np.uint8]]] = {}
        for plan, video in zip(plans, self._videos, strict=True):
            for place, frame_index in zip(video, plan.frame_indices.tolist(), strict=True):
                self._places.setdefault(frame_index, []).append(place)
        self.wanted: list[int] = sorted(self._places)

    def place(self, frame_index: int) -> NDArray[np.uint8]:
        """Where to write frame `frame_index`: uint8 [H, W, 3], C-contiguous."""
        return self._places[frame_index][0]

    def share(self, frame_index: int) -> None:
        """Copy a frame that was written to its place to all other places that need it."""
        first, *others = self._places[frame_index]
        for other in others:
            other[...] = first

    def clips(self, times_seconds: NDArray[np.float64]) -> tuple[Clip, ...]:
        """The filled clips; `times_seconds` are those of all frames of the video, in any clock."""
        relative = times_seconds - times_seconds[0]
        return tuple(
            Clip(video, plan.frame_indices, relative[plan.frame_indices], plan.padded_frames)
            for plan, video in zip(self._plans, self._videos, strict=True)
        )
