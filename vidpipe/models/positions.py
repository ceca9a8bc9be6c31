"""Positions for another number of frames or another image size than they were made for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PositionAxis:
    """What a parameter of positions runs along.

    Args:
        axis: `space` (a square grid), `time`, or `space-time` (time-major).
        num_prefix: leading positions that belong to a class token.
    """

    axis: Literal["space", "time", "space-time"]
    num_prefix: int


def resample_space(positions: Tensor, grid: tuple[int, int], *, num_prefix: int) -> Tensor:
    """Positions of a square grid for `grid` (rows, columns), bicubic.

    Args:
        positions: [1, num_prefix + n*n, D].
        grid: rows and columns wanted.
        num_prefix: leading positions (class token) that are kept as they are.

    Returns:
        [1, num_prefix + rows * columns, D].
    """
    side = math.isqrt(positions.shape[1] - num_prefix)
    if grid == (side, side):
        return positions
    result: Tensor = resample_abs_pos_embed(positions, new_size=list(grid), num_prefix_tokens=num_prefix)
    return result


def resample_time(positions: Tensor, length: int, *, num_prefix: int) -> Tensor:
    """Positions along time for `length` steps, linear between centres.

    Args:
        positions: [1, num_prefix + n, D].
        length: number of steps wanted.
        num_prefix: leading positions (class token) that are kept as they are.

    Returns:
        [1, num_prefix + length, D].
    """
    if positions.shape[1] == num_prefix + length:
        return positions
    prefix, rest = positions[:, :num_prefix], positions[:, num_prefix:]
    rest = F.interpolate(rest.float().transpose(1, 2), size=length, mode="linear", align_corners=False)
    return torch.cat([prefix, rest.transpose(1, 2).to(positions.dtype)], dim=1)


def resample_space_time(
    positions: Tensor, old: tuple[int, int, int], new: tuple[int, int, int], *, num_prefix: int
) -> Tensor:
    """Positions of a time-major grid `old` for a grid `new` (time, rows, columns), trilinear.

    Args:
        positions: [1, num_prefix + T*H*W, D].
        num_prefix: leading positions (class token) that are kept as they are.

    Returns:
        [1, num_prefix + T'*H'*W', D].
    """
    if old == new:
        return positions
    prefix, rest = positions[:, :num_prefix], positions[:, num_prefix:]
    volume = rest.float().transpose(1, 2).reshape(1, -1, *old)
    volume = F.interpolate(volume, size=new, mode="trilinear", align_corners=False)
    return torch.cat([prefix, volume.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def sine_positions(num_tokens: int, width: int) -> Tensor:
    """Fixed positions [1, num_tokens, width]: sine at even, cosine at odd channels, wavelengths from 2 pi to 10000 * 2 pi.

    Vaswani et al., "Attention is all you need" (2017), section 3.5, over the flattened tokens, as VideoMAE has them.
    """
    channel = torch.arange(width, dtype=torch.float64)
    rate = torch.pow(10000.0, -2 * torch.div(channel, 2, rounding_mode="floor") / width)
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] * rate
    even = (torch.arange(width) % 2 == 0).expand_as(angle)
    return torch.where(even, angle.sin(), angle.cos()).float()[None]
