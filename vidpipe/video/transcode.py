"""A whole video made small: decoded once, scaled, and encoded again as H.264 with key frames at fixed distances."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError
from vidpipe.video.access import judging
from vidpipe.video.ffmpeg_backend import are_same_frames, find_damage, measured, picture_filters
from vidpipe.video.ffmpeg_run import FfmpegRun
from vidpipe.video.probe import IndexedVideo, VideoInfo, index_video
from vidpipe.video.sampling import SLACK_SECONDS
from vidpipe.video.spec import ClipSpec


@dataclass(frozen=True, slots=True, eq=False)
class Transcoded:
    """A video that was encoded again.

    Attributes:
        info: the source's stream.
        content: the MP4 file.
        size: width and height of its frames.
        times_seconds: float64 [T], presentation times of its frames after the first one.
    """

    info: VideoInfo
    content: bytes
    size: tuple[int, int]
    times_seconds: NDArray[np.float64]


def transcode_video(path: str | os.PathLike[str], spec: ClipSpec, *, crf: int, gop: int) -> Transcoded:
    """Encode all frames of a video at the size that `spec` says, or those that its `fps` picks by presentation time.

    The frames are 4:2:0, BT.709, limited range; a key frame comes every `gop` frames and no frame refers to a later one.
    It holds the encoded file in memory, not the frames; as `extract_clips` it sets no time limit.

    Args:
        spec: the size, and `fps` where its sampling says so.
        crf: x264's constant rate factor, 0 (lossless) to 51.

    Raises:
        VideoError: the video can't be used; the reasons are those of `extract_clips`, and `encode` (stage `encode`) if it is
            sound, but H.264 in MP4 can't hold its frames.
        OSError: this machine, or the storage that the file lies on, is at fault.
    """
    with judging(path):
        video = index_video(path)
        made = None if video.doubt else _encode(path, video, spec, crf=crf, gop=gop)
        if made is None:
            video = measured(path, video)
            made = _encode(path, video, spec, crf=crf, gop=gop)
        if made is None:
            raise VideoError("damaged", "ffmpeg gives other frames when it decodes the video again", stage="decode")
        return made


def _encode(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, *, crf: int, gop: int
) -> Transcoded | None:
    """None if the frames are not those that `video` tells of."""
    info = video.info
    output = os.memfd_create("encoded")
    try:
        filters = [
            *_timing(spec),
            *picture_filters(info, spec),
            "scale=out_color_matrix=bt709:out_range=tv",
            "setsar=1",
            "sidedata=mode=delete:type=DISPLAYMATRIX",  # a turn that isn't followed, which readers of the MP4 would follow
        ]
        arguments = _output(f"/proc/self/fd/{output}", crf=crf, gop=gop)
        base: Literal["demux", "filter"] = "filter" if spec.sampling == "fps" else "demux"
        try:
            with FfmpegRun(
                path, info, filters, num_packets=None, output=arguments, time_base=base, pass_fds=(output,)
            ) as run:
                run.wait()
                times = run.times_seconds()
        except VideoError as error:
            if error.reason != "damaged":
                raise
            find_damage(path, info)
            width, height = spec.output_size(info.width, info.height)
            message = f"the video is sound, but can't become H.264 of {width}x{height}: {error.message}"
            raise VideoError("encode", message, stage="encode") from error
        content = os.pread(output, os.fstat(output).st_size, 0)
    finally:
        os.close(output)
    if spec.sampling == "fps":  # which frames came is only known without the filter
        find_damage(path, info)
    elif not are_same_frames(video, range(info.num_frames), times):
        return None
    if len(times) == 0:
        raise VideoError("no-frames", "ffmpeg gives no frame, and no error either", stage="decode")
    return Transcoded(info, content, spec.output_size(info.width, info.height), times - times[0])


def _timing(spec: ClipSpec) -> list[str]:
    """The frame that is on screen at each tick, as `sampling` picks it; ticks begin with the first frame, whatever its time.

    A tick shows the last frame whose time, rounded up to ticks, is past. Times are in microseconds, so that what is taken off
    for their rounding is not lost in a coarser time base.
    """
    if spec.sampling != "fps":
        return []
    slack = round(SLACK_SECONDS * 1e6)
    return ["settb=AVTB", f"setpts='max(PTS-STARTPTS-{slack},0)'", f"fps={spec.fps:g}:round=up:start_time=0"]


def _output(path: str, *, crf: int, gop: int) -> list[str]:
    return [
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf), "-pix_fmt", "yuv420p", "-bf", "0"),
        *("-g", str(gop), "-keyint_min", str(gop), "-sc_threshold", "0"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
        *("-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"),
        *("-f", "mp4", "-y", path),
    ]
