"""Clips to try codecs with, and one operation of RandAugment done to one clip."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidpipe.loader.augmentation.randaugment import OPERATIONS
from vidpipe.loader.transfer import to_device
from vidpipe.shards.codecs.base import Frames


def soft_colors(frames: int, height: int, width: int) -> Frames:
    """Waves, of which little is lost, others in every frame."""
    t, y, x = (np.arange(n) for n in (frames, height, width))
    waves = np.sin(x[:, None] / 17 + t[:, None, None, None]) + np.cos(y[:, None, None] / 11 * np.array([1, 1.3, 0.7]))
    return np.ascontiguousarray((128 + 55 * waves).astype(np.uint8))


def changed_by(operation: str, frames: Tensor, strength: float, sign: int) -> Tensor:
    """uint8 [T, 3, H, W]."""
    height, width = frames.shape[-2:]
    own = OPERATIONS[operation].numbers(strength, sign, (height, width))
    numbers = torch.tensor([own], dtype=torch.float32, device="cpu")
    return OPERATIONS[operation].apply(frames[None], to_device(numbers, frames.device))[0]
