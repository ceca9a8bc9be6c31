"""Videos that ffmpeg draws itself."""

from __future__ import annotations

from pathlib import Path

from vidpipe.video.ffmpeg import run_ffmpeg

H264 = ("-c:v", "libx264")


def write_video(path: Path, picture: str, *encoding: str) -> Path:
    """A video of what `picture`, a source among ffmpeg's filters, draws; H.264 and 4:2:0 if not told otherwise."""
    pixels = () if "-pix_fmt" in encoding else ("-pix_fmt", "yuv420p")
    end = ("-threads", "1", "-y", f"file:{path}")
    run_ffmpeg(["-v", "error", "-f", "lavfi", "-i", picture, *(encoding or H264), *pixels, *end], timeout_seconds=60)
    return path
