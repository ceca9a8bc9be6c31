"""Rotation, shear, scaling and translation, composed with the crop into one sampling of the stored frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.checks import is_range
from vidpipe.recipes import Settings


@dataclass(frozen=True, slots=True)
class Warp:
    """How a clip is sampled from its region: resized first where it is minified, so that nothing aliases, then bilinearly.

    Attributes:
        height, width: in pixels, to which the region is resized.
        matrix: float64 [2, 3]; takes x, y of the model's input to x, y of the resized region, in pixels from the upper left
            corner, the first pixel's centre being at 0.5. Beyond the region's edge its outermost pixels are repeated.
    """

    height: int
    width: int
    matrix: NDArray[np.float64]


class Affine(Settings):
    """Random affine maps about the frame's centre, applied before the crop; the same for all frames of a clip.

    Attributes:
        rotation: drawn up to so many degrees, either way.
        shear: horizontal, drawn up to so many degrees, either way; below 90.
        translation: drawn up to this share of the frame's width and height, either way; below 1.
        scale: range of the factor.
        prob: share of the clips that are mapped at all.
    """

    rotation: float = Field(default=0.0, ge=0, le=180)
    shear: float = Field(default=0.0, ge=0, lt=90)
    translation: float = Field(default=0.0, ge=0, lt=1)
    scale: tuple[float, float] = (1.0, 1.0)
    prob: float = Field(default=1.0, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not is_range(scale):
            raise ValueError("expected two factors above 0, in order")
        return scale

    def draw(self, rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64] | None:
        """A map, float64 [3, 3], from x, y of a frame to where they are moved; None for a clip that stays as it is."""
        if rng.random() >= self.prob:
            return None
        return affine_map(
            degrees=rng.uniform(-self.rotation, self.rotation),
            shear_degrees=rng.uniform(-self.shear, self.shear),
            shift=(
                rng.uniform(-self.translation, self.translation) * width,
                rng.uniform(-self.translation, self.translation) * height,
            ),
            scale=rng.uniform(*self.scale),
            center=(width / 2, height / 2),
        )


def affine_map(
    *, degrees: float, shear_degrees: float, shift: tuple[float, float], scale: float, center: tuple[float, float]
) -> NDArray[np.float64]:
    """Shear, scale and turn (clockwise) about `center`, then shift; x and y in pixels. float64 [3, 3]."""
    angle = math.radians(degrees)
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    sheared = np.array([[1, math.tan(math.radians(shear_degrees))], [0, 1]])
    result = np.eye(3)
    result[:2, :2] = scale * turned @ sheared
    result[:2, 2] = np.array(center) + shift - result[:2, :2] @ np.array(center)
    return result


def warp_region(moved: NDArray[np.float64], crop: Region, *, size: int, height: int, width: int) -> tuple[Region, Warp]:
    """The sampling that gives `crop` of a frame whose content was moved.

    Args:
        moved: float64 [3, 3], as `affine_map` gives it.
        crop: of the moved frame; its flip becomes part of the map.
        size: side of the model's input.
        height, width: of the frame.

    Returns:
        the part of the frame that is needed, and how it is sampled.
    """
    to_crop = np.array([[crop.width / size, 0, crop.left], [0, crop.height / size, crop.top], [0, 0, 1]])
    if crop.flip:
        to_crop = to_crop @ np.array([[-1, 0, size], [0, 1, 0], [0, 0, 1]])
    source = np.linalg.inv(moved) @ to_crop
    step = np.maximum(
        1.0, np.hypot(source[:2, 0], source[:2, 1])
    )  # frame pixels between two of the input, along x and y
    corners = source[:2] @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    low = np.floor(corners.min(axis=1) - 2 * step)
    high = np.ceil(corners.max(axis=1) + 2 * step)
    limit = np.array([width, height])
    low = np.clip(low, 0, limit - 1).astype(int)
    high = np.clip(high, low + 1, limit).astype(int)
    resized = np.ceil((high - low) / step).astype(int)
    scale = resized / (high - low)
    matrix = scale[:, None] * (source[:2] - np.column_stack([np.zeros((2, 2)), low]))
    region = Region(top=int(low[1]), left=int(low[0]), height=int(high[1] - low[1]), width=int(high[0] - low[0]))
    return region, Warp(int(resized[1]), int(resized[0]), matrix)
