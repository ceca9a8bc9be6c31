"""Which frames of a video make up its clips. Pure: the same arguments give the same frames on any machine."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.spec import ClipSpec

# A frame counts as shown at a time when it starts at most this much later: Matroska rounds times to 1 ms.
SLACK_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """The frames of one clip.

    Attributes:
        frame_indices: int64 [T], positions among the video's frames in presentation order, never decreasing.
        padded_frames: how many of them repeat another one because the video is too short for the clip.
    """

    frame_indices: NDArray[np.int64]
    padded_frames: int


def plan_clips(spec: ClipSpec, times_seconds: NDArray[np.float64], *, key: str) -> tuple[ClipPlan, ...]:
    """The clips of a video whose frames are shown at `times_seconds`.

    A video that is too short for a clip is padded: the clip's last frame is repeated (`stride`, `fps`), or all of the
    frames are spread evenly over the clip (`uniform`); either way `padded_frames` counts the repeats.

    Args:
        spec: how many clips of how many frames.
        times_seconds: float64 [N], ascending; only `fps` sampling uses more than its length.
        key: names the video; with `spec.seed` and the clip's number it determines the jitter.

    Raises:
        ValueError: there is no frame.
    """
    if len(times_seconds) == 0:
        raise ValueError("a video without frames has no clips")
    places = [_place_in_share(spec, key, number) for number in range(spec.clips)]
    if spec.sampling == "uniform":
        return tuple(_uniform(spec, len(times_seconds), place) for place in places)
    if spec.sampling == "fps":
        return tuple(_by_time(spec, times_seconds, place) for place in places)
    return tuple(_by_stride(spec, len(times_seconds), place) for place in places)


def _place_in_share(spec: ClipSpec, key: str, number: int) -> float:
    """Where clip `number` lies in [0, 1): the video is divided into equal shares, one a clip."""
    within = 0.5
    if spec.jitter:
        text = f"{spec.seed}\0{number}\0{key}".encode("utf-8", "surrogateescape")
        within = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48
    return (number + within) / spec.clips


def _by_stride(spec: ClipSpec, num_frames: int, place: float) -> ClipPlan:
    span = (spec.frames - 1) * spec.stride + 1
    start = math.floor(max(num_frames - span + 1, 1) * place)
    held = min(spec.frames, (num_frames - 1 - start) // spec.stride + 1)
    steps = np.minimum(np.arange(spec.frames, dtype=np.int64), held - 1)
    return ClipPlan(start + steps * spec.stride, spec.frames - held)


def _by_time(spec: ClipSpec, times_seconds: NDArray[np.float64], place: float) -> ClipPlan:
    if spec.fps is None:
        raise ValueError("sampling by time needs spec.fps")
    num_frames = len(times_seconds)
    last_frame_seconds = float(np.median(np.diff(times_seconds))) if num_frames > 1 else 0.0
    end = times_seconds[-1] + last_frame_seconds - SLACK_SECONDS
    room = max(0.0, end - (spec.frames - 1) / spec.fps - times_seconds[0])
    start = int(np.searchsorted(times_seconds, times_seconds[0] + room * place, side="right")) - 1
    targets = times_seconds[start] + np.arange(spec.frames) / spec.fps
    held = max(1, int(np.searchsorted(targets, end, side="left")))
    shown = np.searchsorted(times_seconds, targets + SLACK_SECONDS, side="right").astype(np.int64) - 1
    shown[held:] = shown[held - 1]
    return ClipPlan(np.clip(shown, 0, num_frames - 1), spec.frames - held)


def _uniform(spec: ClipSpec, num_frames: int, place: float) -> ClipPlan:
    segment = num_frames / spec.frames
    indices = np.floor((np.arange(spec.frames) + place) * segment).astype(np.int64)
    return ClipPlan(np.minimum(indices, num_frames - 1), max(0, spec.frames - num_frames))
