"""Which frames of a stored clip a model is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidpipe.errors import UsageError
from vidpipe.loader.batch import Window
from vidpipe.video.spec import ClipSpec


@dataclass(frozen=True, slots=True)
class FrameWindow:
    """How `frames` of a clip of `stored` frames are taken.

    Attributes:
        step: in stored frames, from one taken frame to the next.
        segments: take one frame of each of `frames` equal segments of the clip instead (evenly sampled videos).
        window: `random`, `center` or the first frame's number.
    """

    stored: int
    frames: int
    step: int
    segments: bool
    window: Window

    def pick(self, rng: np.random.Generator) -> list[int]:
        """Frame numbers within the stored clip, ascending."""
        if self.segments:
            length = self.stored // self.frames
            offsets = (
                rng.integers(0, length, self.frames) if self.window == "random" else np.full(self.frames, length // 2)
            )
            return [int(i * length + offset) for i, offset in enumerate(offsets)]
        room = self.stored - self.span
        if self.window == "random":
            first = int(rng.integers(0, room + 1))
        else:
            first = room // 2 if self.window == "center" else int(self.window)
        return list(range(first, first + self.span, self.step))

    @property
    def span(self) -> int:
        """Stored frames from the first to the last one taken, both included."""
        return (self.frames - 1) * self.step + 1


def frame_window(clip: ClipSpec, *, frames: int | None, stride: int | None, window: Window) -> FrameWindow:
    """The window that the arguments ask for, checked against what is stored.

    Args:
        clip: the stored clip's geometry.
        frames: number of frames; all that are stored by default.
        stride: in native source frames where the clip was cut by a stride, else in stored frames; as stored by default.

    Raises:
        UsageError: it doesn't fit the stored clip; the message has the numbers and the prep options that would make it fit.
    """
    wanted = frames or clip.frames
    if clip.sampling == "uniform" and wanted < clip.frames and stride is None:
        if clip.frames % wanted:
            raise UsageError(
                f"frames: got {wanted}, but the clips hold {clip.frames} evenly spread frames: expected a divisor"
            )
        return FrameWindow(clip.frames, wanted, 1, segments=True, window="random" if window == "random" else "center")
    base = clip.stride if clip.sampling == "stride" else 1
    native = stride if stride is not None else base
    if native < 1 or native % base:
        raise UsageError(
            f"stride: got {native}, but the clips are stored at stride {base}: expected a multiple of {base}"
        )
    result = FrameWindow(clip.frames, wanted, native // base, segments=False, window=window)
    last = result.span - 1 + (window if isinstance(window, int) else 0)
    if wanted < 1 or last >= clip.frames or (isinstance(window, int) and window < 0):
        need = f"--frames {last + 1} --stride {base}" if clip.sampling == "stride" else f"--frames {last + 1}"
        raise UsageError(
            f"{wanted} frames at stride {native} span {result.span} stored frames"
            f"{f' from frame {window} on' if isinstance(window, int) else ''}, but the clips hold {clip.frames} "
            f"at stride {base}; ask for fewer frames or a smaller stride, or prepare with {need}"
        )
    return result
