"""Colour jitter of a clip as one matrix, so that it costs one pass or none of its own."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vidpipe.recipes import Settings

Matrix = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as YIQ
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class ColorJitter(Settings):
    """Random brightness, contrast, saturation and hue, applied in this order; the same for all frames of a clip.

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 - value (0 at least) to 1 + value. Contrast is about the
            grey of the mean by which the shards say to normalise, a clip's own not being known before it is read.
        hue: a rotation of the chroma (YIQ) by up to this share of a turn, 0 to 0.5, either way.
        prob: share of the clips that are changed at all.
    """

    brightness: float = Field(default=0.0, ge=0)
    contrast: float = Field(default=0.0, ge=0)
    saturation: float = Field(default=0.0, ge=0)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    prob: float = Field(default=1.0, ge=0, le=1)

    def draw(self, rng: np.random.Generator, *, grey: float) -> Matrix | None:
        """A matrix as `color_matrix` gives it; None for a clip that stays as it is."""
        if rng.random() >= self.prob:
            return None
        brightness, contrast, saturation = (
            rng.uniform(max(0.0, 1 - value), 1 + value) for value in (self.brightness, self.contrast, self.saturation)
        )
        hue = rng.uniform(-self.hue, self.hue)
        return color_matrix(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, grey=grey)


def color_matrix(*, brightness: float, contrast: float, saturation: float, hue: float, grey: float) -> Matrix:
    """The matrix of one change of colours.

    Args:
        brightness, contrast, saturation: factors; 1 changes nothing.
        hue: in turns, from red towards green.
        grey: level about which contrast is changed, 0 to 255.

    Returns:
        float32 [3, 4]: new levels = matrix[:, :3] @ RGB levels + matrix[:, 3]. They are to be clipped to 0 to 255.
    """
    angle = -2 * math.pi * hue
    turned = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    chroma = np.linalg.inv(_YIQ) @ turned @ _YIQ
    saturated = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    linear = chroma @ saturated
    shift = linear.sum(axis=1) * (1 - contrast) * grey
    return np.column_stack([linear * contrast * brightness, shift]).astype(np.float32)


def expected_grey(mean: tuple[float, float, float]) -> float:
    """Luma, in levels, of a normalisation's mean (RGB, 0 to 1)."""
    return 255 * float(_LUMA @ np.array(mean))
