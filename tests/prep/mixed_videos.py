"""Small videos of many codecs, and bad ones of every kind, each with the reason for which it has to be rejected."""

from __future__ import annotations

import random
from pathlib import Path

from generated_video import write_video

from vidpipe.video.ffmpeg import run_ffmpeg

H264 = ("-c:v", "libx264", "-preset", "ultrafast")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
AV1 = ("-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8")
GOOD = {
    "h264.mp4": (*H264, "-movflags", "+faststart"),
    "b-frames.mkv": ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3"),
    "variable-rate.mp4": (*H264, "-vf", "select='lt(n,10)+not(mod(n,3))'", "-fps_mode", "vfr"),
    "444.mp4": (*H264, "-pix_fmt", "yuv444p"),
    "10-bit.mkv": (*HEVC, "-pix_fmt", "yuv420p10le"),
    "hevc.mp4": (*HEVC, "-tag:v", "hvc1"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "4"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "4"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "vp9.webm": VP9,
    "av1.mkv": AV1,
}
GRAINY = {  # of so many bytes that damage in the middle hits pictures
    "h264.mp4": (*H264, "-crf", "20", "-movflags", "+faststart"),
    "hevc.mkv": (*HEVC, "-crf", "20"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "vp9.webm": (*VP9, "-b:v", "2M"),
    "av1.mp4": (*AV1, "-crf", "30", "-movflags", "+faststart"),
}


def make_good(folder: Path) -> list[Path]:
    """One video of each codec in `GOOD`, and one that is rotated, all different."""
    made = []
    for number, (name, options) in enumerate(GOOD.items()):
        picture = f"testsrc2=size=96x64:rate=25:duration=1.2,hue=h={number * 23}"
        made.append(write_video(folder / name, picture, *options))
    turned = folder / "rotated.mp4"
    run_ffmpeg(
        ["-display_rotation", "90", "-i", f"file:{made[0]}", "-c", "copy", "-y", f"file:{turned}"], timeout_seconds=60
    )
    return [*made, turned]


def make_bad(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Content and reason, by name, of 18 files that no decoder can use."""
    noisy = "testsrc2=size=192x128:rate=25:duration=1.6,noise=alls=20:allf=t:all_seed=1"
    whole = {name: write_video(folder / name, noisy, *options).read_bytes() for name, options in GRAINY.items()}
    for name in ("tone.mp4", "tone.mkv"):
        tone = ["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"]
        run_ffmpeg([*tone, "-y", f"file:{folder / name}"], timeout_seconds=60)
    for name in ("no frames.mp4", "no frames.avi"):
        write_video(folder / name, noisy, *GOOD["h264.mp4" if name.endswith("mp4") else "mpeg4.avi"], "-frames:v", "0")
    made = {
        "tone.mp4": "no-video-stream",
        "tone.mkv": "no-video-stream",
        "no frames.mp4": "no-video-stream",
        "no frames.avi": "no-frames",
    }
    shares = zip(whole.items(), (3, 6, 5, 7, 8), strict=True)
    return {
        "empty.mp4": (b"", "empty"),
        "empty.webm": (b"", "empty"),
        "text.mp4": (b"This is a text. " * 50, "not-a-video"),
        "noise.avi": (random.Random(1).randbytes(50_000), "not-a-video"),
        **{name: ((folder / name).read_bytes(), reason) for name, reason in made.items()},
        **{f"cut {name}": (content[: len(content) * tenths // 10], "truncated") for (name, content), tenths in shares},
        **{f"damaged {name}": (_damaged(content), "damaged") for name, content in whole.items()},
    }


def _damaged(content: bytes) -> bytes:
    middle, length = len(content) // 2, 20_000
    return content[:middle] + random.Random(1).randbytes(length) + content[middle + length :]
