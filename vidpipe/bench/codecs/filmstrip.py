"""Two layouts of JPEG: one file a frame, as the codec has it, and a filmstrip (all frames in one tall picture)."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 90


@dataclass(frozen=True, slots=True)
class Filmstrip:
    """Milliseconds to decode the frames of one clip in one thread, a value a round, and bytes of the mean clip.

    Attributes:
        frames_ms: so many files of one frame each, whatever the clip that they belong to is long.
        strip_ms: a filmstrip of so many frames.
        long_strip_ms: a filmstrip of `long_frames` frames, which has to be decoded whole for any of them.
        frames_bytes, strip_bytes: of so many frames in either layout.
    """

    frames: int
    long_frames: int
    frames_ms: tuple[float, ...]
    strip_ms: tuple[float, ...]
    long_strip_ms: tuple[float, ...]
    frames_bytes: int
    strip_bytes: int


def measure_filmstrip(clips: Sequence[NDArray[np.uint8]], *, frames: int, rounds: int) -> Filmstrip:
    """Encode clips both ways, and decode them in turns.

    Args:
        clips: uint8 [T, H, W, 3]; T * H at most 65,535, JPEG's limit.
        frames: that are wanted of each, evenly spread.
    """
    long_frames = len(clips[0])
    step = max(1, long_frames // frames)
    taken = [clip[: frames * step : step] for clip in clips]
    single = [[_encode(frame) for frame in clip] for clip in taken]
    strip = [[_encode(_tall(clip))] for clip in taken]
    long_strip = [[_encode(_tall(clip))] for clip in clips]
    seconds: tuple[list[float], ...] = ([], [], [])
    for _ in range(rounds):
        for times, files in zip(seconds, (single, strip, long_strip), strict=True):
            begin = time.perf_counter()
            for clip_files in files:
                for content in clip_files:
                    _decode(content)
            times.append((time.perf_counter() - begin) / len(clips) * 1e3)
    frames_bytes, strip_bytes = (sum(len(f) for files in kind for f in files) // len(clips) for kind in (single, strip))
    frames_ms, strip_ms, long_strip_ms = (tuple(times) for times in seconds)
    return Filmstrip(frames, long_frames, frames_ms, strip_ms, long_strip_ms, frames_bytes, strip_bytes)


def _tall(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    frames, height, width, _ = clip.shape
    return np.ascontiguousarray(clip).reshape(frames * height, width, 3)


def _encode(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return stream.getvalue()


def _decode(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
