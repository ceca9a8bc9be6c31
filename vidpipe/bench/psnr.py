"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def psnr_db(difference: NDArray[np.float32]) -> float:
    """PSNR in dB of pictures whose values, in levels of 255, differ by `difference`; infinite when all are equal."""
    flat = difference.reshape(-1)
    return psnr_of_error(float(np.dot(flat, flat)) / flat.size)


def psnr_of_error(squared: float) -> float:
    """The same, given the mean squared difference."""
    return math.inf if squared == 0 else 10 * math.log10(255**2 / squared)
