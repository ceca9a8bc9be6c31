"""The reference transform of a clip: crop, antialiased resize in 8 bits, mirror, colour, normalise, [C, T, H, W].

On a device frames are resized in floats and rounded, and all is done in as few kernels as there can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidpipe.loader.augmentation.affine import Warp
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.augmentation.color import Matrix
from vidpipe.loader.augmentation.region import Region, center_region
from vidpipe.loader.reading.thread_memory import ThreadMemory
from vidpipe.loader.sampling.window import frame_window
from vidpipe.loader.transfer import to_device
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import Normalization
from vidpipe.video.spec import ClipSpec

# What F.interpolate calls; it has no `out`, and threads that each ask for fresh memory for every clip hold each other up.
_resize_into = torch.ops.aten._upsample_bilinear2d_aa.out

# On the CPU so many frames go through all passes before the next ones: what one pass writes, the next finds in the core's cache.
# Clips of 16 frames at 224 pixels take 2.8 ms then, and 3.3 ms with all frames together.
BLOCK_FRAMES = 4


def normalization_tables(normalization: Normalization) -> tuple[Tensor, Tensor]:
    """Scale and shift, float32 [3, 1, 1, 1], such that normalised = u8 * scale + shift."""
    mean = torch.tensor(normalization.mean, dtype=torch.float64, device="cpu")
    std = torch.tensor(normalization.std, dtype=torch.float64, device="cpu")
    scale, shift = 1 / (255 * std), -mean / std
    return scale.float().view(3, 1, 1, 1), shift.float().view(3, 1, 1, 1)


class ClipTransform:
    """Makes the model's input of clips, in any number of threads at once; each has working memory of its own.

    Args:
        size: side of the input in pixels.
        device: that the clips are on, to be worked on in the device's way; None is the CPU's.
    """

    def __init__(self, *, size: int, normalization: Normalization, device: torch.device | None = None) -> None:
        self._size = size
        self._on_device = device is not None
        self._tables = tuple(table.to(device or "cpu") for table in normalization_tables(normalization))
        self._scale, self._shift = (table.view(3) for table in self._tables)
        self._factors = self._scale.tolist()
        self._limits = [
            (low, low + 255 * factor) for low, factor in zip(self._shift.tolist(), self._factors, strict=True)
        ]
        self._memory = ThreadMemory()

    def __call__(self, video: Tensor, drawn: Drawn, *, out: Tensor) -> None:
        """Write the model's input for one clip.

        Args:
            video: uint8 [T, H, W, 3].
            out: float32, float16 or bfloat16 [3, T, size, size], contiguous; is overwritten.
        """
        if self._on_device:
            self._transform(video, drawn, out=out)
            return
        for first in range(0, len(video), BLOCK_FRAMES):
            block = slice(first, first + BLOCK_FRAMES)
            self._transform(video[block], drawn, out=out[:, block])

    def _transform(self, video: Tensor, drawn: Drawn, *, out: Tensor) -> None:
        if drawn.warp is None:
            levels = self._resized(video, drawn.region, self._size, self._size)
            levels = levels.flip(3) if drawn.region.flip else levels
        else:
            levels = self._warped(self._resized(video, drawn.region, drawn.warp.height, drawn.warp.width), drawn.warp)
        if self._on_device and drawn.color is None:
            scale, shift = self._tables
            torch.addcmul(shift, levels.transpose(0, 1), scale, out=out)
            return
        planes = (
            out
            if out.dtype == torch.float32
            else self._memory.take("planes", tuple(out.shape), device=self._scale.device)
        )
        if drawn.color is None:
            planes.copy_(levels.transpose(0, 1))
            for channel, factor in enumerate(self._factors):
                torch.add(self._shift[channel], planes[channel], alpha=factor, out=planes[channel])
        else:
            self._recolor(levels, drawn.color, planes)
        if planes is not out:
            out.copy_(planes)

    def _resized(self, video: Tensor, region: Region, height: int, width: int) -> Tensor:
        """The region of every frame, antialiased: [T, 3, height, width] in channels-last memory, whole levels."""
        rows, columns = (slice(region.top, region.top + region.height), slice(region.left, region.left + region.width))
        cut = video[:, rows, columns].permute(0, 3, 1, 2)
        if cut.shape[2:] == (height, width):
            return cut
        if self._on_device:
            return resize_in_floats(cut, height, width)
        source = (
            self._memory.take("cut", (len(video), *cut.shape[2:], 3), dtype=torch.uint8).permute(0, 3, 1, 2).copy_(cut)
        )
        resized = self._memory.take("resized", (len(video), height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        _resize_into(source, [height, width], False, None, None, out=resized)
        return resized

    def _warped(self, levels: Tensor, warp: Warp) -> Tensor:
        """Sampled bilinearly: float32 [T, 3, size, size], in [C, T, H, W] memory."""
        frames, _, height, width = levels.shape
        planes = self._memory.take("source", (3, frames, height, width), device=self._scale.device)
        planes.copy_(levels.transpose(0, 1))
        grid = sampling_grid(
            warp.matrix, (self._size, self._size), of=(warp.height, warp.width), device=self._scale.device
        )
        sampled = F.grid_sample(
            planes.view(1, 3 * frames, height, width), grid[None], padding_mode="border", align_corners=False
        )
        return sampled.view(3, frames, self._size, self._size).transpose(0, 1)

    def _recolor(self, levels: Tensor, color: Matrix, planes: Tensor) -> None:
        """Colour and normalisation as one matrix, clipped to what levels 0 to 255 become."""
        device = self._scale.device
        change = to_device(torch.from_numpy(color), device)
        linear = self._scale[:, None] * change[:, :3]
        shift = torch.addcmul(self._shift, self._scale, change[:, 3])
        if not self._on_device:  # a matrix of three rows is slow on the CPU: in this way it takes half the time
            source = self._memory.take("levels", tuple(planes.shape)).copy_(levels.transpose(0, 1))
            for plane, offset, (red, green, blue) in zip(planes, shift, linear.tolist(), strict=True):
                torch.add(offset, source[0], alpha=red, out=plane)
                plane.add_(source[1], alpha=green).add_(source[2], alpha=blue)
        else:
            mixed = shift.view(3, 1, 1, 1)
            for source, factors in zip(levels.transpose(0, 1), linear.t(), strict=True):
                mixed = torch.addcmul(mixed, source, factors.view(3, 1, 1, 1), out=planes)
        for plane, (low, high) in zip(planes, self._limits, strict=True):
            plane.clamp_(low, high)


def sampling_grid(
    matrix: NDArray[np.float64], size: tuple[int, int], *, of: tuple[int, int], device: torch.device
) -> Tensor:
    """Where `grid_sample` takes each pixel from: float32 [height, width, 2], from -1 to 1 over what is sampled.

    `affine_grid` makes a matrix product of it, which training may allow in TF32: a few hundredths of a pixel off.

    Args:
        matrix: as `Warp.matrix`.
        size: height and width of the result.
        of: height and width of what is sampled.
    """
    return grid_of(grid_numbers(matrix, of), size, device=device)


def grid_numbers(matrix: NDArray[np.float64], of: tuple[int, int]) -> list[float]:
    """The six numbers that `grid_of` takes, for a matrix of `sampling_grid`."""
    (a, b, c), (d, e, f) = (matrix * (2 / np.array(of[::-1])[:, None])).tolist()
    return [a, b, c - 1, d, e, f - 1]


def grid_of(numbers: Sequence[float] | Sequence[Tensor], size: tuple[int, int], *, device: torch.device) -> Tensor:
    """See `sampling_grid`; of tensors [N, 1, 1] there come N grids, float32 [N, height, width, 2]."""
    a, b, c, d, e, f = numbers
    height, width = size
    x = torch.arange(width, dtype=torch.float32, device=device) + 0.5
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5)[:, None]
    return torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1)


def resize_in_floats(frames: Tensor, height: int, width: int) -> Tensor:
    """Antialiased, rounded to whole levels; for devices, which can't resize in 8 bits.

    Args:
        frames: uint8 [T, 3, H, W].

    Returns:
        float32 [T, 3, height, width].
    """
    # In one kernel, what `interpolate` would copy again otherwise.
    levels = frames.to(torch.float32, memory_format=torch.contiguous_format)
    return F.interpolate(levels, size=(height, width), mode="bilinear", antialias=True).round_()


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
    taken = torch.from_numpy(video[window.pick(np.random.default_rng(0), len(video))])
    out = torch.empty((3, len(taken), size, size), dtype=torch.float32)
    ClipTransform(size=size, normalization=normalization)(taken, Drawn(center_region(*taken.shape[1:3])), out=out)
    return out
