"""Videos whose every frame says which one it is, in bars of known colours and its number in binary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.ffmpeg import run_ffmpeg

WIDTH, HEIGHT = 192, 128
COLORS = np.array(
    [(235, 235, 235), (220, 220, 20), (20, 220, 220), (20, 220, 20), (220, 20, 220), (220, 20, 20), (20, 20, 220), (20,) * 3],
    np.uint8,
)  # fmt: skip
_BITS = 8


class MakeVideo(Protocol):
    """The `ffmpeg_video` fixture."""

    def __call__(
        self,
        name: str,
        *encoding: str,
        frames: int = 40,
        fps: int = 25,
        picture: NDArray[np.uint8] | None = None,
        before_output: Sequence[str] = (),
    ) -> Path:
        """Encode `frames` numbered frames, or the frames `picture`, to the file `name` with ffmpeg's options `encoding`."""


def numbered_frames(num_frames: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: bars of `COLORS` above the frame's number, most significant bit first, a white block for 1."""
    video = np.empty((num_frames, height, width, 3), np.uint8)
    columns = np.arange(width) * _BITS // width
    video[:, : height // 2] = COLORS[columns][None, None]
    bits = (np.arange(num_frames)[:, None] >> (_BITS - 1 - columns)[None]) & 1
    video[:, height // 2 :] = np.where(bits, 235, 16).astype(np.uint8)[:, None, :, None]
    return video


def make_video(
    path: Path,
    *encoding: str,
    frames: int = 40,
    fps: int = 25,
    picture: NDArray[np.uint8] | None = None,
    before_output: Sequence[str] = (),
) -> Path:
    """Encode with the ffmpeg program; frames are piped to it as raw RGB."""
    video = numbered_frames(frames) if picture is None else picture
    size = f"{video.shape[2]}x{video.shape[1]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "pipe:0"]
    run_ffmpeg(
        ["-v", "error", "-y", *source, *before_output, *encoding, str(path)],
        timeout_seconds=60,
        stdin=video.tobytes(),
    )
    return path


def copy_video(source: Path, name: str, *, before: Sequence[str] = (), after: Sequence[str] = ("-c", "copy")) -> Path:
    """Another file beside `source` with its streams, by ffmpeg with options before the input and after it."""
    path = source.with_name(name)
    run_ffmpeg(["-v", "error", "-y", *before, "-i", str(source), *after, str(path)], timeout_seconds=60)
    return path


def read_numbers(video: NDArray[np.uint8]) -> list[int]:
    """The frames' numbers, which are there at any size as long as the picture is upright and not mirrored."""
    _, height, width, _ = video.shape
    centres = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    bits = video[:, int(height * 0.75), centres].mean(axis=-1) > 128
    return (bits @ (1 << np.arange(_BITS)[::-1])).tolist()


def color_error(video: NDArray[np.uint8]) -> float:
    """Largest difference, in levels of 255, between the bars' colours at their centres and the true ones."""
    _, height, width, _ = video.shape
    centres = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    shown = video[:, int(height * 0.25), centres].astype(int)
    return float(np.abs(shown - COLORS[None].astype(int)).max())


def psnr(video: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = np.mean((video.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ffmpeg_frames(path: Path, *, size: tuple[int, int], stream: str = "0:v:0") -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: all frames as the ffmpeg program gives them, scaled to `size`."""
    width, height = size
    filters = f"scale={width}:{height}"
    args = ["-v", "error", "-i", str(path), "-map", stream, "-fps_mode", "passthrough", "-vf", filters]
    raw = run_ffmpeg([*args, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"], timeout_seconds=60)
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
