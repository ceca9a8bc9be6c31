"""Which frames of a video file a model is given: those that evaluation takes of what the shards hold of the video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.sampling.window import FrameWindow, frame_window
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.video.sampling import SLACK_SECONDS, ClipPlan, plan_clips
from vidpipe.video.spec import ClipSpec

if TYPE_CHECKING:  # decoding children import this module, and have no need of torch
    from vidpipe.train.checkpoint import Preprocessing


@dataclass(frozen=True, slots=True)
class StoredClips:
    """How the clips of a video are cut.

    Attributes:
        spec: the clips that shards hold; where they hold the video whole, the geometry of the clip that evaluation takes.
        window: of a video that is held whole, the frames of that clip; None for stored clips.
    """

    spec: ClipSpec
    window: FrameWindow | None

    def plan(self, times_seconds: NDArray[np.float64], *, key: str) -> tuple[ClipPlan, ...]:
        """The clips of a video whose frames are shown at `times_seconds`, as `plan_clips` gives them."""
        if self.window is None:
            return plan_clips(self.spec, times_seconds, key=key)
        held = _held_frames(self.spec, times_seconds)
        picked = self.window.pick(np.random.default_rng(0), len(held))
        return (ClipPlan(held[picked], len(picked) - len(set(picked))),)


def stored_clips(preprocessing: Preprocessing) -> StoredClips:
    """The clips that the model's shards hold of a video, or the one that evaluation takes where they hold it whole."""
    clip = preprocessing.clip
    if not stores_whole_videos(preprocessing.codec):
        return StoredClips(clip, None)
    window = frame_window(
        clip, whole_videos=True, frames=preprocessing.frames, stride=preprocessing.stride, window="center"
    )
    return StoredClips(clip.model_copy(update={"frames": preprocessing.frames, "clips": 1}), window)


def _held_frames(spec: ClipSpec, times_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frames that a shard holds of a whole video, int64 [N]: all, or those on screen at the ticks of `spec.fps`."""
    num_frames = len(times_seconds)
    if spec.fps is None:
        return np.arange(num_frames)
    last_frame_seconds = float(np.median(np.diff(times_seconds))) if num_frames > 1 else 0.0
    seconds = times_seconds[-1] + last_frame_seconds - SLACK_SECONDS - times_seconds[0]
    ticks = times_seconds[0] + np.arange(max(1, int(np.ceil(seconds * spec.fps)))) / spec.fps
    shown: NDArray[np.int64] = np.searchsorted(times_seconds, ticks + SLACK_SECONDS, side="right").astype(np.int64) - 1
    return shown
