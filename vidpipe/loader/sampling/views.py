"""Test views: T windows over what is stored of a video times S crops of each, averaged by whoever evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.options import LoaderOptions
from vidpipe.loader.reading.index import SampleIndex
from vidpipe.loader.sampling.sampler import Units
from vidpipe.loader.sampling.window import FrameWindow


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of each video there are; view number t * spatial + s is window t, crop s.

    Attributes:
        temporal: windows, spread evenly over the stored clips of the video (those that are sampled from) and within each of these.
        spatial: square crops, spread evenly along the longer side; one is the centre.
    """

    temporal: int
    spatial: int

    def __len__(self) -> int:
        return self.temporal * self.spatial

    def clip(self, view: int, clips: int) -> int:
        """Which of a video's `clips` stored clips a view is taken of."""
        return (2 * (view // self.spatial) + 1) * clips // (2 * self.temporal)

    def window_place(self, view: int, clips: int) -> tuple[int, int]:
        """Which of how many windows of its clip a view is."""
        clip = self.clip(view, clips)
        same = [t for t in range(self.temporal) if self.clip(t * self.spatial, clips) == clip]
        return same.index(view // self.spatial), len(same)

    def frames(self, view: int, clips: int, window: FrameWindow, stored: int) -> list[int]:
        """Frame numbers of a view within its clip of `stored` frames; of one window, the centre (which `window` says)."""
        number, count = self.window_place(view, clips)
        if count == 1:
            return window.pick(np.random.default_rng(0), stored)
        return window.at(_spread(number, count, window.room(stored)), stored)

    def region(self, view: int, height: int, width: int) -> Region:
        """The square of a view; in a square frame all crops are the same."""
        side, number = min(height, width), view % self.spatial
        top, left = (_spread(number, self.spatial, room) for room in (height - side, width - side))
        return Region(top=top, left=left, height=side, width=side)


def make_views(
    options: LoaderOptions, windows: Sequence[FrameWindow], units: Units, index: SampleIndex
) -> Views | None:
    """The views that the options ask for of each unit, None for none.

    Raises:
        UsageError: there are several data sets, or a video's stored clips don't have distinct windows for all views; the
            message names the first such video, with the numbers. Videos that are stored whole repeat theirs.
    """
    if options.views is None:
        return None
    if len(windows) > 1:
        raise UsageError(f"views: got {len(windows)} data sets, expected one; make a loader for each")
    views, window = Views(*options.views), windows[0]
    if window.clip_frames is None:
        return views
    places = window.room(window.clip_frames) + 1
    clips = units.clip_counts()
    for count in np.unique(clips).tolist():
        if any(views.window_place(view, count)[1] > places for view in range(0, len(views), views.spatial)):
            video = index.video[units.clips(int(np.flatnonzero(clips == count)[0]))[0]]
            raise UsageError(
                f"views: got {views.temporal} windows, but {window.frames} frames have {places} places in each of the {count} "
                f"stored clips of {window.clip_frames} frames of {video}; ask for {places * count} at most, "
                f"or prepare with --clips {views.temporal}"
            )
    return views


def _spread(number: int, count: int, room: int) -> int:
    """Place `number` of `count` that are spread evenly from 0 to `room`, both included; the middle where there is one."""
    return room // 2 if count == 1 else number * room // (count - 1)
