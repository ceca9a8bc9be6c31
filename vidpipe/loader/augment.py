"""Augmentation parameters, drawn by (seed, epoch, sample) alone: the same sample gets the same on any rank and after any resume."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a frame that is resized to the model's input, in whole pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def center_region(height: int, width: int) -> Region:
    """The largest square about the centre."""
    side = min(height, width)
    return Region(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Which random transformations there are.

    Attributes:
        crop_scale: range of the crop's share of the area.
        crop_ratio: range of its width to height; drawn uniformly in its logarithm.
        flip: mirror half of the clips.
    """

    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool

    def region(self, rng: np.random.Generator, height: int, width: int) -> Region:
        """A random resized crop: ten attempts, then the largest centred one within the ratio (Szegedy et al., 2015)."""
        flip = bool(rng.random() < 0.5) and self.flip
        for _ in range(10):
            area = height * width * rng.uniform(*self.crop_scale)
            ratio = math.exp(rng.uniform(math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
                return Region(top, left, h, w, flip)
        ratio = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
        h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
        return Region((height - h) // 2, (width - w) // 2, h, w, flip)


def sample_rng(*, seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample in one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, sample]))
