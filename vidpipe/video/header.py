"""What a video's header alone says, for estimates: cheap to read, and nothing to rely on (see `probe` for that)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vidpipe.errors import VideoError
from vidpipe.video.access import judging
from vidpipe.video.child import serve
from vidpipe.video.probe import best_stream, opened


@dataclass(frozen=True, slots=True)
class Header:
    """A video stream, by its container's own account.

    Attributes:
        width: of the stored picture, in pixels, before any turn.
        height: likewise.
        fps: mean frames a second; None when it isn't said.
        duration_seconds: None when it isn't said.
        num_frames: from a count, or else from duration and rate; None when neither is there.
    """

    width: int
    height: int
    fps: float | None
    duration_seconds: float | None
    num_frames: int | None


def read_header(path: str | os.PathLike[str]) -> Header:
    """Open the file and look no further than libav does to tell its streams.

    Raises:
        VideoError: those of `probe` that can be seen in this way.
    """
    with judging(path), opened(path) as (container, _):
        stream = best_stream(container)
        width, height = stream.codec_context.width, stream.codec_context.height
        if not width or not height:
            raise VideoError("damaged", "not even the picture's size can be read", stage="probe")
        fps = float(stream.average_rate or stream.guessed_rate or 0) or None
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        if seconds is None and container.duration:
            seconds = container.duration / 1e6
        frames = stream.frames or (round(seconds * fps) if seconds and fps else None)
    if seconds is None and frames and fps:
        seconds = frames / fps
    return Header(width, height, fps, seconds, frames)


def main(pipe_fd: int) -> None:
    """What a child does that reads headers: each job is a path."""
    serve(pipe_fd, read_header)
