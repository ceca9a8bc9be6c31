"""Which frames of a stored clip, or of a video that is stored whole, a model is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError
from vidpipe.loader.checks import check_whole
from vidpipe.loader.options import Window
from vidpipe.loader.reading.splits import Split
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.shards.manifest import Manifest
from vidpipe.video.spec import ClipSpec

SEGMENTS = "segments"  # evenly spread frames, in place of a step


@dataclass(frozen=True, slots=True)
class FrameWindow:
    """How `frames` of a sample's stored frames are taken.

    A video that is stored whole may be too short for the window: its last frame that the steps reach is repeated then, as
    prep does with short videos.

    Attributes:
        step: in stored frames, from one taken frame to the next.
        segments: take one frame of each of `frames` equal segments of the sample instead (evenly sampled videos).
        window: `random`, `center` or the first frame's number (the last possible one in videos that are too short for it).
        clip_frames: frames of every sample; None where whole videos are stored.
    """

    frames: int
    step: int
    segments: bool
    window: Window
    clip_frames: int | None

    def pick(self, rng: np.random.Generator, stored: int) -> list[int]:
        """Frame numbers within a sample of `stored` frames, never decreasing."""
        if self.segments:
            return self._of_segments(rng.random(self.frames) if self.window == "random" else 0.5, stored)
        room = self.room(stored)
        if isinstance(self.window, int):
            return self.at(min(self.window, room), stored)
        place = rng.random() if self.window == "random" else 0.5
        return self.at(math.floor((room + 1) * place), stored)

    def at(self, place: int, stored: int) -> list[int]:
        """Frame numbers of one window, as `pick` gives them: `place` is 0 for the earliest, `room` for the last."""
        if self.segments:
            return self._of_segments((place + 0.5) / (self.room(stored) + 1), stored)
        held = min(self.frames, (stored - 1 - place) // self.step + 1)
        taken = range(place, place + held * self.step, self.step)
        return [*taken, *[taken[-1]] * (self.frames - held)]

    def room(self, stored: int) -> int:
        """How many other windows than the first a sample of `stored` frames has."""
        return max(0, stored // self.frames - 1 if self.segments else stored - self.span)

    @property
    def spacing(self) -> int | str:
        """What tells its frames from those of another window with as many, for states: `step`, or SEGMENTS."""
        return SEGMENTS if self.segments else self.step

    @property
    def span(self) -> int:
        """Stored frames from the first to the last one taken, both included."""
        return (self.frames - 1) * self.step + 1

    def _of_segments(self, places: float | NDArray[np.float64], stored: int) -> list[int]:
        frames = np.floor((np.arange(self.frames) + places) * stored / self.frames)
        return [int(frame) for frame in np.minimum(frames, stored - 1)]


def frame_window(
    clip: ClipSpec, *, whole_videos: bool = False, frames: int | None, stride: int | None, window: Window
) -> FrameWindow:
    """The window that the arguments ask for, checked against what is stored.

    Args:
        clip: the stored clip's geometry.
        whole_videos: all frames of the videos are stored, and `clip` is only what is taken by default.
        frames: number of frames; those of `clip` by default.
        stride: in native source frames where the clip was cut by a stride, else in stored frames; that of `clip` by default.

    Raises:
        UsageError: it doesn't fit the stored clip; the message has the numbers and what would make it fit.
    """
    wanted = clip.frames if frames is None else frames
    check_whole("frames", wanted, 1)
    if clip.sampling == "uniform" and stride is None and (whole_videos or wanted < clip.frames):
        if not whole_videos and clip.frames % wanted:
            raise UsageError(
                f"frames: got {wanted}, but the clips hold {clip.frames} evenly spread frames: expected a divisor"
            )
        if isinstance(window, int):
            raise UsageError(
                f"window: got {window}, but {wanted} frames of evenly sampled ones have no first frame to choose; take 'random' or "
                "'center', or a `stride`"
            )
        return FrameWindow(wanted, 1, True, window, None if whole_videos else clip.frames)
    default = clip.stride if clip.sampling == "stride" else 1
    base = 1 if whole_videos else default
    native = default if stride is None else stride
    check_whole("stride", native, 1)
    if native % base:
        raise UsageError(
            f"stride: got {native}, but the clips are stored at stride {base}: expected a multiple of {base}"
        )
    result = FrameWindow(wanted, native // base, False, window, None if whole_videos else clip.frames)
    last = result.span - 1 + (window if isinstance(window, int) else 0)
    if not whole_videos and last >= clip.frames:
        need = f"--frames {last + 1} --stride {base}" if clip.sampling == "stride" else f"--frames {last + 1}"
        raise UsageError(
            f"{wanted} frames at stride {native} span {result.span} stored frames"
            f"{f' from frame {window} on' if isinstance(window, int) else ''}, but the clips hold {clip.frames} "
            f"at stride {base}; ask for fewer frames or a smaller stride, or prepare with {need}"
        )
    return result


def stored_window(manifest: Manifest, *, frames: int | None, stride: int | None, window: Window) -> FrameWindow:
    """`frame_window` of a split's samples."""
    whole = stores_whole_videos(manifest.codec)
    return frame_window(manifest.clip, whole_videos=whole, frames=frames, stride=stride, window=window)


def split_windows(
    splits: Sequence[Split], *, frames: int | None, stride: int | None, window: Window
) -> tuple[FrameWindow, ...]:
    """Each split's own window, of the same number of frames at the same spacing in time; see `frame_window`.

    Raises:
        UsageError: the splits are stored differently and it isn't said which to take, or it doesn't fit all of them.
    """
    clips = [split.manifest.clip for split in splits]
    counted = {"stride": "native", "uniform": "evenly spread"}
    units = [counted.get(clip.sampling, f"at {clip.fps} fps") for clip in clips]
    _check_alike("stride", "count different frames", splits, units, "prepare them alike")
    if stride is None:
        _check_alike(
            "stride", "are stored with different ones", splits, [f"{c.stride}" for c in clips], "say which to take"
        )
    if frames is None:
        _check_alike(
            "frames", "are stored with different ones", splits, [f"{c.frames}" for c in clips], "say which to take"
        )
    return tuple(stored_window(split.manifest, frames=frames, stride=stride, window=window) for split in splits)


def _check_alike(name: str, differ: str, splits: Sequence[Split], values: Sequence[str], hint: str) -> None:
    if len(set(values)) > 1:
        each = ", ".join(f"{split.name} {value}" for split, value in zip(splits, values, strict=True))
        raise UsageError(f"{name}: the data sets {differ} ({each}); {hint}")
