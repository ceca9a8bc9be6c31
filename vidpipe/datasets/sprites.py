"""Drawing of the `motion` data set: one textured sprite that moves on a torus, in front of noise.

The sprite has a position, an angle and a log-scale. Each is drawn uniformly from its own cycle, and a class moves one
of them at constant speed around that cycle. So every single frame has the same distribution in all classes: whatever
tells them apart is in the order of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The classes in label order (sorted), each with the sign of its motion.
MOTIONS = {
    "anticlockwise": ("turn", -1.0),
    "clockwise": ("turn", 1.0),
    "down": ("y", 1.0),
    "grow": ("scale", 1.0),
    "left": ("x", -1.0),
    "right": ("x", 1.0),
    "shrink": ("scale", -1.0),
    "up": ("y", -1.0),
}

_TEXTURE = 32
_SMALLEST, _LARGEST = 0.6, 1.4
_FRAMES_PER_CYCLE = (18.0, 26.0)
_FINE_GRAIN = 4.0
# Such that clips of 320x240 take 15 kB a JPEG of quality 90 and 2 kB a frame of H.264, where the real ones of docs/benchmarks.md take
# 14 and 2.4 kB.
_DRIFT = 12  # pixels to every side
_OCTAVES = (6, 12, 24, 48, 96)  # cells along either side
_CONTRAST, _COLOURED = 4.0, 0.3  # standard deviation of each octave in levels of 255, and of colours beside that


@dataclass(frozen=True)
class Track:
    """Where the sprite is in each of T frames.

    Attributes:
        x: centre in pixels, float64 [T], in [0, width).
        y: likewise, downwards, in [0, height).
        angle: radians clockwise on the screen, float64 [T].
        scale: size relative to the middle one, float64 [T], in [0.6, 1.4).
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    angle: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]


def draw_track(
    motion: str, *, frames: int, slow_motion: float = 1, width: int, height: int, rng: np.random.Generator
) -> Track:
    """A random track of the class `motion`: uniform start, constant speed, wrapping around."""
    x, y, turn, phase = rng.random(4) * (width, height, 2 * np.pi, 1)
    cycles = np.arange(frames) / (rng.uniform(*_FRAMES_PER_CYCLE) * slow_motion)
    which, sign = MOTIONS[motion]
    xs, ys, angles, phases = (np.full(frames, value) for value in (x, y, turn, phase))
    if which == "x":
        xs = xs + sign * cycles * width
    elif which == "y":
        ys = ys + sign * cycles * height
    elif which == "scale":
        phases = phases + sign * cycles
    else:
        angles = angles + sign * cycles * 2 * np.pi
    scales = _SMALLEST * (_LARGEST / _SMALLEST) ** np.mod(phases, 1)
    return Track(np.mod(xs, width), np.mod(ys, height), angles, scales)


def draw_video(
    track: Track, *, width: int, height: int, rng: np.random.Generator, scenery: bool = False
) -> npt.NDArray[np.uint8]:
    """The frames of a track, uint8 [T, H, W, 3] RGB: random sprite, random still background, grain in each frame.

    Args:
        scenery: a background with details of every size that drifts, as if the camera were held by hand.
    """
    texture = _draw_texture(rng)
    background = _smooth_noise(height, width, cells=10, rng=rng) * 14 + rng.uniform(90, 130, 3)
    radius = 0.24 * min(width, height) * track.scale[:, None, None]
    dx = np.mod(np.arange(width)[None, None, :] - track.x[:, None, None] + width / 2, width) - width / 2
    dy = np.mod(np.arange(height)[None, :, None] - track.y[:, None, None] + height / 2, height) - height / 2
    cos, sin = np.cos(track.angle)[:, None, None], np.sin(track.angle)[:, None, None]
    u = ((dx * cos + dy * sin) / radius + 1) / 2 * (_TEXTURE - 1)
    v = ((dy * cos - dx * sin) / radius + 1) / 2 * (_TEXTURE - 1)
    frames = np.broadcast_to(background, (len(track.x), height, width, 3)).astype(np.float32)
    if scenery:
        frames += _draw_drift(len(track.x), height, width, rng=rng)
    inside = (u >= 0) & (u < _TEXTURE - 1) & (v >= 0) & (v < _TEXTURE - 1)
    colour = _sample(texture, u[inside], v[inside])
    frames[inside] += colour[:, 3:] * (colour[:, :3] - frames[inside])
    frames += rng.standard_normal(frames.shape, dtype=np.float32) * _FINE_GRAIN
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _draw_texture(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A random sprite, float32 [32, 32, RGB + opacity]: a disc that goes from dark to light once around, with blotches.

    Like a radar's sweep it looks different at each angle, and has the same handedness in all classes.
    """
    axis = np.linspace(-1, 1, _TEXTURE)
    u, v = axis[None, :], axis[:, None]
    light, dark = rng.uniform(190, 255, 3), rng.uniform(0, 60, 3)
    around = np.mod(np.arctan2(v, u) / (2 * np.pi), 1)[..., None]
    colour = dark + (light - dark) * around + _smooth_noise(_TEXTURE, _TEXTURE, cells=5, rng=rng) * 12
    opacity = np.clip((0.95 - np.hypot(u, v)) * 8, 0, 1)[..., None]
    return np.concatenate([np.clip(colour, 0, 255), opacity], axis=2).astype(np.float32)


def _draw_drift(frames: int, height: int, width: int, *, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A view that wanders over something larger, float32 [T, H, W, 3] about 0.

    As in photographs, details of each octave have the same contrast, and brightness varies more than colour.
    """
    tall, wide = height + 2 * _DRIFT, width + 2 * _DRIFT
    octaves = [_smooth_noise(tall, wide, cells=cells, rng=rng) for cells in _OCTAVES]
    details = np.sum(octaves, axis=0)
    whole = (details[..., :1] + _COLOURED * details) * _CONTRAST
    cycles = np.arange(frames)[:, None] / rng.uniform(40, 80, 2) + rng.random(2)
    corners = np.rint(_DRIFT * (1 + np.sin(2 * np.pi * cycles))).astype(int)
    return np.stack([whole[top : top + height, left : left + width] for top, left in corners])


def _smooth_noise(height: int, width: int, *, cells: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise of about unit variance that is smooth between a grid of `cells` x `cells` random points, [H, W, 3]."""
    grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
    v, u = np.meshgrid(np.linspace(0, cells - 1.001, height), np.linspace(0, cells - 1.001, width), indexing="ij")
    return _sample(grid, u.ravel(), v.ravel()).reshape(height, width, 3) * 1.5


def _sample(
    image: npt.NDArray[np.float32], u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Bilinear samples of an image [H, W, C] at columns u [N] and rows v [N], both inside it: [N, C]."""
    column, row = u.astype(np.intp), v.astype(np.intp)
    right, below = (u - column).astype(np.float32)[:, None], (v - row).astype(np.float32)[:, None]
    upper = image[row, column] * (1 - right) + image[row, column + 1] * right
    lower = image[row + 1, column] * (1 - right) + image[row + 1, column + 1] * right
    return (upper * (1 - below) + lower * below).astype(np.float32, copy=False)
