"""RandAugment (Cubuk et al., 2020, arXiv:1909.13719) on a batch of clips, on the batch's device.

Operations and their strengths are those of the `rand-m7-n4-mstd0.5-inc1` policy with which VideoMAE and TimeSformer-like
models are fine-tuned: a set whose strength grows with the magnitude. All frames of a clip get the same operations. What is
drawn for a clip is a pure function of (seed, epoch, key). Clips that get the same operation get it together, so that a GPU isn't
kept waiting for a thousand small calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from vidpipe.loader.augmentation.augment import keyed_rng
from vidpipe.loader.augmentation.policies import RandAugment
from vidpipe.loader.augmentation.transform import grid_numbers, grid_of
from vidpipe.loader.transfer import to_device
from vidpipe.shards.manifest import Normalization

_GREY = [124.0, 116.0, 104.0]  # the mean of ImageNet, for what moves into the picture
_TOP = 10.0

Numbers = Callable[[float, int, tuple[int, int]], Sequence[float]]
"""From a strength in [0, 1], a sign, and the frames' height and width."""

Apply = Callable[[Tensor, Tensor], Tensor]
"""From frames uint8 [N, T, 3, H, W] and float32 [N, K], the numbers of each clip, to frames; waits for nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done to clips.

    Attributes:
        apply: does it, to several clips at once, each with numbers of its own.
        numbers: that a clip needs for it.
    """

    apply: Apply
    numbers: Numbers = lambda strength, sign, size: ()


# Those of torchvision's that take a number take one for all pictures, and its `affine` and `adjust_sharpness` make tensors of it,
# for each of which a GPU is waited for.


def _wide(numbers: Tensor) -> Tensor:
    """A number of each clip, to go with its frames: [N, 1, 1, 1, 1]."""
    return numbers.view(-1, 1, 1, 1, 1)


def _levels(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


# Brightness and what mixes with grey go by two numbers: the factor, and what is left of 1.


def _factor(strength: float, sign: int, size: tuple[int, int]) -> Sequence[float]:
    factor = max(0.1, 1.0 + sign * 0.9 * strength)
    return factor, 1.0 - factor


def _brightness(frames: Tensor, numbers: Tensor) -> Tensor:
    return _levels(frames * _wide(numbers[:, 0]))


def _color(frames: Tensor, numbers: Tensor) -> Tensor:
    grey = tv.rgb_to_grayscale(frames)
    return _levels((frames * _wide(numbers[:, 0])).addcmul_(grey, _wide(numbers[:, 1])))


def _contrast(frames: Tensor, numbers: Tensor) -> Tensor:
    mean = tv.rgb_to_grayscale(frames).float().mean(dim=(-3, -2, -1), keepdim=True)
    return _levels((frames * _wide(numbers[:, 0])).addcmul_(mean, _wide(numbers[:, 1])))


def _sharpness(frames: Tensor, numbers: Tensor) -> Tensor:
    """Away from, or towards, each pixel's mean with its neighbours, in which it has a weight of 5 to their 1."""
    levels = frames.float()
    inner = levels[..., 1:-1, 1:-1]
    mean = F.avg_pool2d(levels.flatten(0, 1), 3, stride=1).view(inner.shape)
    blurred = ((9 * mean + 4 * inner) / 13).round_()
    inner.copy_(blurred.lerp_(inner, _wide(numbers[:, 0])))
    return _levels(levels)


def _posterize(frames: Tensor, numbers: Tensor) -> Tensor:
    return frames & _wide(numbers).to(torch.uint8)


def _solarize(frames: Tensor, numbers: Tensor) -> Tensor:
    return torch.where(frames >= _wide(numbers), ~frames, frames)


def _solarize_add(frames: Tensor, numbers: Tensor) -> Tensor:
    return torch.where(frames < 128, _levels(frames + _wide(numbers)), frames)


def _affine(frames: Tensor, numbers: Tensor) -> Tensor:
    """Bilinear; what comes from outside the picture is grey."""
    grey = numbers[:, 6:].view(-1, 1, 3, 1, 1)
    height, width = frames.shape[-2:]
    grid = grid_of([n.view(-1, 1, 1) for n in numbers[:, :6].unbind(1)], (height, width), device=frames.device)
    moved = F.grid_sample((frames - grey).flatten(1, 2), grid, align_corners=False).view(frames.shape)
    return _levels(moved.add_(grey).round_())


def _affine_numbers(
    size: tuple[int, int], *, angle: float = 0.0, shift: tuple[float, float] = (0, 0), shear: float = 0.0, axis: int = 0
) -> Sequence[float]:
    """Rotated clockwise by `angle` degrees about the centre, sheared along an axis, shifted by whole pixels; and the grey."""
    turn = np.radians(angle)
    forward = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    sheared = np.eye(2)
    sheared[axis, 1 - axis] = -shear
    back = np.linalg.inv(forward @ sheared)
    height, width = size
    center = np.array([width / 2, height / 2])
    matrix = np.column_stack([back, center - back @ (center + np.round(shift))])
    return [*grid_numbers(matrix, size), *_GREY]


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": Operation(lambda frames, _: tv.autocontrast(frames)),
    "equalize": Operation(lambda frames, _: tv.equalize(frames)),
    "invert": Operation(lambda frames, _: ~frames),
    "rotate": Operation(_affine, lambda strength, sign, size: _affine_numbers(size, angle=sign * 30 * strength)),
    "posterize": Operation(_posterize, lambda strength, sign, size: [256 - (1 << 8 - max(1, 4 - int(4 * strength)))]),
    "solarize": Operation(_solarize, lambda strength, sign, size: [256 - int(256 * strength)]),
    "solarize_add": Operation(_solarize_add, lambda strength, sign, size: [min(128, int(110 * strength))]),
    "color": Operation(_color, _factor),
    "contrast": Operation(_contrast, _factor),
    "brightness": Operation(_brightness, _factor),
    "sharpness": Operation(_sharpness, _factor),
    "shear_x": Operation(_affine, lambda strength, sign, size: _affine_numbers(size, shear=sign * 0.3 * strength)),
    "shear_y": Operation(
        _affine, lambda strength, sign, size: _affine_numbers(size, shear=sign * 0.3 * strength, axis=1)
    ),
    "translate_x": Operation(
        _affine, lambda strength, sign, size: _affine_numbers(size, shift=(sign * 0.45 * strength * size[1], 0))
    ),
    "translate_y": Operation(
        _affine, lambda strength, sign, size: _affine_numbers(size, shift=(0, sign * 0.45 * strength * size[0]))
    ),
}


def draw_operations(policy: RandAugment, key: str, *, seed: int, epoch: int) -> list[tuple[str, float, int]]:
    """What is applied to one clip: names, strengths in [0, 1] and signs."""
    generator = keyed_rng(f"rand-augment/{seed}/{epoch}/{key}")
    names = list(OPERATIONS)
    drawn = []
    for _ in range(policy.ops):
        name = names[int(generator.integers(len(names)))]
        strength = float(np.clip(generator.normal(policy.magnitude, policy.std), 0, _TOP)) / _TOP
        sign = 1 if generator.random() < 0.5 else -1
        if generator.random() < policy.prob:
            drawn.append((name, strength, sign))
    return drawn


@dataclass(frozen=True, slots=True)
class _Step:
    """What is done to some clips of a batch at once.

    Attributes:
        places: of the clips in the batch.
        numbers: of each of these.
    """

    apply: Apply
    places: list[int] = field(default_factory=list)
    numbers: list[Sequence[float]] = field(default_factory=list)


def _steps(drawn: Sequence[list[tuple[str, float, int]]], size: tuple[int, int]) -> list[_Step]:
    """The operations of each clip in their order, those of several clips that come at the same turn together."""
    steps: list[_Step] = []
    for turn in zip_longest(*drawn):
        together: dict[Apply, _Step] = {}
        for place, one in enumerate(turn):
            if one is not None:
                name, strength, sign = one
                operation = OPERATIONS[name]
                step = together.setdefault(operation.apply, _Step(operation.apply))
                step.places.append(place)
                step.numbers.append(operation.numbers(strength, sign, size))
        steps += together.values()
    return steps


def rand_augment(
    video: Tensor, *, keys: Sequence[str], policy: RandAugment, normalization: Normalization, seed: int, epoch: int
) -> Tensor:
    """Augment a batch of normalised clips.

    Args:
        video: float [B, 3, T, H, W]; it is left as it is.
        keys: the B clips' keys.
        normalization: that the clips have.

    Returns:
        float [B, 3, T, H, W], normalised.
    """
    drawn = [draw_operations(policy, key, seed=seed, epoch=epoch) for key in keys]
    steps = _steps(drawn, (video.shape[-2], video.shape[-1]))
    # All numbers go to the device in one copy.
    parts = [[*normalization.mean, *normalization.std], *([n for own in s.numbers for n in own] for s in steps)]
    flat = torch.tensor([number for part in parts for number in part], dtype=torch.float32, device="cpu")
    ours, *theirs = torch.split(to_device(flat, video.device), [len(part) for part in parts])
    mean, std = ours.view(2, 3, 1, 1, 1)
    levels = _levels(((video * std + mean) * 255).round_())
    clips = list(levels.transpose(1, 2))
    for step, numbers in zip(steps, theirs, strict=True):
        frames = torch.stack([clips[place] for place in step.places])
        for place, clip in zip(step.places, step.apply(frames, numbers.view(len(frames), -1)), strict=True):
            clips[place] = clip
    augmented = (torch.stack(clips).transpose(1, 2).to(video.dtype) / 255 - mean) / std
    kept = zip(video, augmented.to(video.dtype), drawn, strict=True)
    return torch.stack([after if operations else before for before, after, operations in kept])
