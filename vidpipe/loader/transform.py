"""The reference transform of a clip on the CPU: crop, antialiased resize in 8 bits, mirror, normalise, [C, T, H, W]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidpipe.loader.augment import Region, center_region
from vidpipe.loader.window import frame_window
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import Normalization
from vidpipe.video.spec import ClipSpec


def normalization_tables(normalization: Normalization) -> tuple[Tensor, Tensor]:
    """Scale and shift, float32 [3, 1, 1, 1], such that normalised = u8 * scale + shift."""
    mean = torch.tensor(normalization.mean, dtype=torch.float64)
    std = torch.tensor(normalization.std, dtype=torch.float64)
    scale, shift = 1 / (255 * std), -mean / std
    return scale.float().view(3, 1, 1, 1), shift.float().view(3, 1, 1, 1)


def resize_region(video: Frames, region: Region, size: int) -> Tensor:
    """The region of every frame, resized with antialiasing.

    Args:
        video: uint8 [T, H, W, 3].
        size: side of the result in pixels.

    Returns:
        uint8 [T, 3, size, size], in channels-last memory.
    """
    frames = torch.from_numpy(video).permute(0, 3, 1, 2)
    cut = frames[:, :, region.top : region.top + region.height, region.left : region.left + region.width]
    if cut.shape[2:] != (size, size):
        cut = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return cut.flip(3) if region.flip else cut


def transform_clip(video: Frames, region: Region, *, out: Tensor, scale: Tensor, shift: Tensor) -> None:
    """Write the model's input for one clip.

    Args:
        video: uint8 [T, H, W, 3].
        out: float32 [3, T, size, size]; is overwritten.
        scale, shift: from `normalization_tables`.
    """
    resized = resize_region(video, region, out.shape[-1])
    out.copy_(resized.permute(1, 0, 2, 3))
    for channel in range(3):
        torch.add(shift[channel], out[channel], alpha=float(scale[channel]), out=out[channel])


def center_clip(
    video: Frames,
    clip: ClipSpec,
    *,
    frames: int | None = None,
    stride: int | None = None,
    size: int,
    normalization: Normalization,
) -> Tensor:
    """What `Loader(augment=None)` gives for a clip: the centred window and square, resized and normalised.

    Args:
        video: uint8 [T, H, W, 3].
        clip: how `video` was cut; `frames` and `stride` are then meant as by `Loader`.
        size: side of the result in pixels.

    Returns:
        float32 [3, frames, size, size].

    Raises:
        UsageError: the frames that are asked for don't fit the clip.
    """
    window = frame_window(clip, frames=frames, stride=stride, window="center")
    taken = video[window.pick(np.random.default_rng(0))]
    scale, shift = normalization_tables(normalization)
    out = torch.empty((3, len(taken), size, size), dtype=torch.float32)
    transform_clip(taken, center_region(*taken.shape[1:3]), out=out, scale=scale, shift=shift)
    return out
