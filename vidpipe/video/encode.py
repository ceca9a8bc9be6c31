"""Encoding of frames as H.264 in MP4, by the ffmpeg program in one thread: the same frames give the same bytes."""

from __future__ import annotations

import os

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from vidpipe.video.ffmpeg import run_ffmpeg

TIMEOUT_SECONDS = 120.0


def write_h264(
    path: str | os.PathLike[str],
    video: NDArray[np.uint8],
    *,
    fps: float,
    crf: int = 20,
    gop: int | None = None,
) -> None:
    """Write frames as an H.264 video in MP4: 4:2:0, BT.709, limited range, tagged as such.

    Args:
        path: of the file, which is overwritten.
        video: uint8 [T, H, W, 3], RGB, C-contiguous; both sides even.
        fps: frames a second.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        gop: a key frame at every so many frames, and none that refers to a later one; x264's choice by default.

    Raises:
        VideoError: ffmpeg failed or took too long.
    """
    _, height, width, _ = video.shape
    bt709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
    reproducible = {"threads": 1, "filter_complex_threads": 1, "fflags": "+bitexact", "flags:v": "+bitexact"}
    frames = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=f"{fps:g}")
    command = (
        frames.filter("scale", out_color_matrix="bt709", out_range="tv")
        .output(
            f"file:{os.fspath(path)}",
            format="mp4",
            vcodec="libx264",
            pix_fmt="yuv420p",
            preset="veryfast",
            crf=crf,
            **({} if gop is None else {"g": gop, "keyint_min": gop, "sc_threshold": 0, "bf": 0}),
            **bt709,
            **reproducible,
        )
        .overwrite_output()
    )
    run_ffmpeg(command.get_args(), timeout_seconds=TIMEOUT_SECONDS, stdin=video.tobytes())
