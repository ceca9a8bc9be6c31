"""What a video file is and what it promises, read from its container with PyAV; a single frame is decoded.

The stream is the one that `av_find_best_stream` picks, as in every decoder here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError
from vidpipe.video.access import check_file
from vidpipe.video.demux import captured_complaints, open_container, promised_ticks, read_packets, ticks_per_frame
from vidpipe.video.files import (
    check_not_cut,
    explain_unreadable,
    library_path,
    may_have_display_matrix,
    stated_end,
)
from vidpipe.video.packets import FrameIndex, index_frames, missing_frames, missing_in_gaps, promised_frames
from vidpipe.video.picture import Picture

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Formats that are text or make ffmpeg open further files; none of them is a video file.
_PLAYLIST_FORMATS = frozenset({"hls", "dash", "concat", "tty", "sdp", "imf", "applehttp"})
# Formats of single pictures, besides those whose names end in `_pipe`.
_IMAGE_FORMATS = frozenset({"image2", "image2pipe", "ico"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo(Picture):
    """A video stream and its pictures.

    Attributes:
        codec: ffmpeg's name, for instance `h264`.
        container: ffmpeg's name of the demuxer, for instance `mov,mp4,m4a,3gp,3g2,mj2`.
        fps: mean frames per second; 0 when unknown.
        promised_frames: how many frames the container says are shown (`packets.promised_frames`); None if it is silent.
        num_frames: how many its packets hold.
        duration_seconds: from the first frame's start to the last one's end.
        start_seconds: presentation time of the first frame in the file's own clock.
        stream_index: position among the container's streams.
    """

    codec: str
    container: str
    fps: float
    promised_frames: int | None
    num_frames: int
    duration_seconds: float
    start_seconds: float
    stream_index: int

    @property
    def is_hdr(self) -> bool:
        """Whether its tones are those of HDR (PQ or HLG)."""
        return self.color_transfer in {"smpte2084", "arib-std-b67"}


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """A probed video and the times of its frames.

    Attributes:
        info: the stream.
        times_seconds: float64 [N], presentation times in the file's own clock, ascending.
        packets_before: int64 [N], how many packets, in the order of the file, show the frames up to this one.
        frames: what the packets tell of the frames.
        has_guessed_times: decoders may give frames other times than the packets have.
        doubt: why a decoder may give other frames than the packets tell; empty when it can't.
    """

    info: VideoInfo
    times_seconds: NDArray[np.float64]
    packets_before: NDArray[np.int64]
    frames: FrameIndex
    has_guessed_times: bool
    doubt: str

    @property
    def only_ffmpeg(self) -> str:
        """Why libraries can't be trusted with it if it is sound, only the ffmpeg program; empty when they can."""
        if self.info.mirrored or self.info.ignored_angle:
            return self.doubt or "its pictures are mirrored, or turned as only ffmpeg knows to ignore"
        return self.doubt or ("only ffmpeg maps the tones of HDR" if self.info.is_hdr else "")


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Read what the video file `path` is and promises.

    Raises:
        VideoError: stage `find` (`missing`, `unreadable`, `empty`) or `probe` (`not-a-video`, `truncated`, `damaged`,
            `no-video-stream`, `unsupported-codec`, `no-frames`).
    """
    return index_video(path).info


def index_video(path: str | os.PathLike[str]) -> IndexedVideo:
    """`probe` with the time of every frame; raises the same."""
    with opened(path) as (container, complaints):
        return _index(path, container, complaints)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, Sequence[tuple[int, str, str]]]]:
    """The file's container, and what libav complains of meanwhile.

    Raises:
        VideoError: those of `probe` that tell why it can't be opened.
    """
    check_file(path)
    import av

    with library_path(path) as name, captured_complaints() as complaints:
        try:
            container = open_container(name)
        except (av.FFmpegError, ValueError) as error:
            said = complaints[-1][2].strip() if complaints else getattr(error, "strerror", "") or type(error).__name__
            raise explain_unreadable(path, said) from error
        with container:
            yield container, complaints


def _index(
    path: str | os.PathLike[str], container: InputContainer, complaints: Sequence[tuple[int, str, str]]
) -> IndexedVideo:
    stream = best_stream(container)
    can_turn = may_have_display_matrix(path, container=container.format.name)
    found = read_packets(container, stream, can_turn=can_turn)
    index = index_frames(found.packets, container=container.format.name, ticks_per_frame=ticks_per_frame(stream))
    codec = stream.codec_context.codec.canonical_name
    if index.num_frames == 0:
        raise VideoError("no-frames", f"the {codec} stream holds no frame", stage="probe")
    if not (found.picture.width and found.picture.height):
        raise VideoError("damaged", f"not even the picture's size can be read from the {codec} stream", stage="probe")
    duration_ticks = promised_ticks(container, stream, found)
    header_frames = 0 if container.format.name == "avi" else stream.frames  # AVI's are ticks
    promised = promised_frames(index, header_frames=header_frames, duration_ticks=duration_ticks)
    said = [text.strip() for _, name, text in complaints if name == container.format.name]
    _check_whole(path, index, promised, said, num_lost=header_frames - len(found.packets) if header_frames else None)
    tick_seconds = float(stream.time_base or 0)
    info = _info(container, stream, found.picture, index, promised)
    times_seconds = index.ticks.astype(np.float64) * tick_seconds
    has_guessed_times = index.is_reordered and (container.format.name == "avi" or codec == "mpeg4")
    return IndexedVideo(info, times_seconds, index.packets_before, index, has_guessed_times, index.doubt)


def _check_whole(
    path: str | os.PathLike[str],
    index: FrameIndex,
    promised: int | None,
    complaints: Sequence[str],
    *,
    num_lost: int | None,
) -> None:
    """See that nothing is known to be missing; `num_lost` packets of the header's count, None where it has none."""
    missing = missing_frames(promised, index.num_frames)
    if missing:
        size, end = Path(path).stat().st_size, stated_end(path)
        reason = "damaged" if end is not None and end <= size else "truncated"
        account = f"; the file should have {end} bytes and has {size}" if end is not None else ""
        raise VideoError(reason, f"{missing} of {promised} promised frames are missing{account}", stage="probe")
    if num_lost is None or num_lost > 0 or index.num_corrupt:
        check_not_cut(path)
    if index.num_corrupt:
        message = f"bytes are missing in {index.num_corrupt} of {index.num_frames} frames"
        raise VideoError("damaged", message, stage="probe")
    gaps = missing_in_gaps(index) if complaints else 0
    if gaps:
        message = f"the container is damaged ({complaints[0]}): about {gaps} frames are missing"
        raise VideoError("damaged", message, stage="probe")


def _info(
    container: InputContainer, stream: VideoStream, picture: Picture, index: FrameIndex, promised: int | None
) -> VideoInfo:
    tick_seconds = float(stream.time_base or 0)
    duration = index.shown_ticks * tick_seconds
    return VideoInfo(
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        fps=_mean_fps(stream, index.num_frames, duration),
        promised_frames=promised,
        num_frames=index.num_frames,
        duration_seconds=duration,
        start_seconds=float(index.ticks[0]) * tick_seconds,
        stream_index=stream.index,
        **asdict(picture),
    )


def _mean_fps(stream: VideoStream, num_frames: int, duration_seconds: float) -> float:
    """The container's own figure where the frames agree with it, being free of rounded times; else the measured one."""
    stated = float(stream.average_rate or stream.guessed_rate or 0)
    measured = num_frames / duration_seconds if duration_seconds > 0 else 0.0
    return stated if not measured or abs(stated - measured) <= 0.01 * measured else measured


def best_stream(container: InputContainer) -> VideoStream:
    """The video stream that all decoders here take.

    Raises:
        VideoError: stage `probe`: `not-a-video`, `no-video-stream`, `unsupported-codec`.
    """
    names = set(container.format.name.split(","))
    if _PLAYLIST_FORMATS & names:
        raise VideoError("not-a-video", f"a {container.format.name} file is a list or text, not a video", stage="probe")
    if _IMAGE_FORMATS & names or any(name.endswith("_pipe") for name in names):
        kind = container.format.name.removesuffix("_pipe")
        raise VideoError("not-a-video", f"this is a picture ({kind}), not a video", stage="probe")
    from av.stream import Disposition

    stream = container.streams.best("video")
    if stream is None or Disposition.attached_pic in stream.disposition:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise VideoError("no-video-stream", f"there is no video stream (streams: {kinds})", stage="probe")
    if stream.codec_context is None:
        raise VideoError("unsupported-codec", "no decoder is known for its video codec", stage="probe")
    return cast("VideoStream", stream)
