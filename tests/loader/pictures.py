"""Clips for codecs to be tried with."""

from __future__ import annotations

import numpy as np

from vidpipe.shards.codecs.base import Frames


def soft_colors(frames: int, height: int, width: int) -> Frames:
    """Waves, of which little is lost, others in every frame."""
    t, y, x = (np.arange(n) for n in (frames, height, width))
    waves = np.sin(x[:, None] / 17 + t[:, None, None, None]) + np.cos(y[:, None, None] / 11 * np.array([1, 1.3, 0.7]))
    return np.ascontiguousarray((128 + 55 * waves).astype(np.uint8))
