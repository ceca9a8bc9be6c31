"""Augmentation parameters, drawn by (seed, epoch, sample) alone: the same sample gets the same on any rank and after any resume."""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidpipe.loader.augmentation.affine import Affine, Warp, warp_region
from vidpipe.loader.augmentation.color import ColorJitter, Matrix
from vidpipe.loader.augmentation.region import Region


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one clip.

    Attributes:
        region: of the stored frame.
        warp: how it is sampled where it isn't just resized.
        color: float32 [3, 4] as `color_matrix` gives it; None leaves the colours.
    """

    region: Region
    warp: Warp | None = None
    color: Matrix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Which random transformations there are.

    Attributes:
        crop_scale: range of the crop's share of the area.
        crop_ratio: range of its width to height; drawn uniformly in its logarithm.
        flip: mirror half of the clips.
        color: of colours; None for none.
        affine: of the frame's shape, before the crop; None for none.
        grey: level about which contrast is changed.
    """

    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    color: ColorJitter | None
    affine: Affine | None
    grey: float

    def draw(self, rng: np.random.Generator, *, height: int, width: int, size: int) -> Drawn:
        """What is done to one clip.

        Args:
            height, width: of its frames.
            size: side of the model's input.
        """
        crop = self._crop(rng, height, width)
        color = self.color.draw(rng, grey=self.grey) if self.color else None
        moved = self.affine.draw(rng, height, width) if self.affine else None
        if moved is None:
            return Drawn(crop, None, color)
        region, warp = warp_region(moved, crop, size=size, height=height, width=width)
        return Drawn(region, warp, color)

    def _crop(self, rng: np.random.Generator, height: int, width: int) -> Region:
        """A random resized crop: ten attempts, then the largest centred one within the ratio (Szegedy et al., 2015)."""
        flip = bool(rng.random() < 0.5) and self.flip
        for _ in range(10):
            area = height * width * _between(*self.crop_scale, rng)
            ratio = math.exp(_between(math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1]), rng))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
                return Region(top, left, h, w, flip)
        ratio = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
        h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
        return Region((height - h) // 2, (width - w) // 2, h, w, flip)


def sample_rng(*, seed: int, epoch: int, sample: int, draw: int = 0) -> np.random.Generator:
    """The generator of one sample in one epoch; `draw` counts its clips where there are several.

    It is the thread's one generator, set anew: the next call ends its use.
    """
    return _KEYED.generator_at(key=(seed, epoch), counter=(0, 0, draw, sample))


def keyed_rng(text: str) -> np.random.Generator:
    """A generator of its own for every text, such as one of a purpose, a seed, an epoch and a sample's key."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest, "little")))


class _Keyed(threading.local):
    """Philox generators, each thread's own: to make one costs seven times as much as to set it."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state  # of one that has given nothing yet

    def generator_at(self, *, key: tuple[int, int], counter: tuple[int, int, int, int]) -> np.random.Generator:
        """As `Generator(Philox(key=key, counter=counter))`."""
        self._state["state"]["key"][:] = key
        self._state["state"]["counter"][:] = counter
        self._bits.state = self._state
        return self._generator


_KEYED = _Keyed()


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    """As `rng.uniform(low, high)`, which takes four times as long for one number."""
    return low + (high - low) * rng.random()
