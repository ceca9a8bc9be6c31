"""A task that only time can solve: a sprite moves left, right, up or down on a torus, from a uniformly random place."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0]])
_BLOCK = 6
_SPRITE = 2 * _BLOCK


def draw_clips(
    count: int, *, num_frames: int, size: int, generator: torch.Generator, noise: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Fresh clips [B, 3, T, H, W] with noise of their own in every frame, and the number of their direction [B]."""
    label = torch.randint(4, (count,), generator=generator)
    speed = torch.randint(2, 5, (count, 1, 1), generator=generator)
    start = torch.randint(size, (count, 1, 2), generator=generator)
    step = torch.arange(num_frames)[None, :, None]
    corner = start + step * speed * DIRECTIONS[label][:, None]  # [B, T, 2]
    along = torch.arange(_SPRITE)
    rows = (corner[..., 0, None] + along) % size  # [B, T, sprite]
    columns = (corner[..., 1, None] + along) % size
    sprite = torch.randn(count, 1, 3, 2, 2, generator=generator).sign()
    sprite = sprite.repeat_interleave(_BLOCK, 3).repeat_interleave(_BLOCK, 4)
    video = torch.zeros(count, num_frames, size, size, 3)
    clip = torch.arange(count)[:, None, None, None]
    frame = torch.arange(num_frames)[None, :, None, None]
    video[clip, frame, rows[..., :, None], columns[..., None, :]] = sprite.permute(0, 1, 3, 4, 2)
    video += noise * torch.randn(video.shape, generator=generator)
    return video.permute(0, 4, 1, 2, 3), label  # channels last in memory


def shuffled(video: Tensor, generator: torch.Generator) -> Tensor:
    """Each clip's frames in an order of its own."""
    order = torch.rand(video.shape[0], video.shape[2], generator=generator).argsort(1)
    return video.gather(2, order[:, None, :, None, None].expand_as(video))


def first_frame_only(video: Tensor) -> Tensor:
    """The first frame in place of all."""
    return video[:, :, :1].expand_as(video)
