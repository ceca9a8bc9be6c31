"""RandAugment (Cubuk et al., 2020, arXiv:1909.13719) on a batch of clips, on the batch's device.

Operations and their strengths are those of the `rand-m7-n4-mstd0.5-inc1` policy with which VideoMAE and TimeSformer-like
models are fine-tuned: a set whose strength grows with the magnitude. All frames of a clip get the same operations. What is
drawn for a clip is a pure function of (seed, epoch, key).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from vidpipe.loader.augmentation.augment import keyed_rng
from vidpipe.loader.augmentation.policies import RandAugment
from vidpipe.loader.augmentation.transform import sampling_grid
from vidpipe.loader.transfer import to_device
from vidpipe.shards.manifest import Normalization

_GREY = [124.0, 116.0, 104.0]  # the mean of ImageNet, for what moves into the picture
_TOP = 10.0


Operation = Callable[[Tensor, float, int], Tensor]
"""From frames uint8 [T, 3, H, W], a strength in [0, 1] and a sign to frames."""


def _factor(strength: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * 0.9 * strength)


# Torchvision's `affine` and `adjust_sharpness` make small tensors of Python's numbers, for each of which a GPU is waited for.


def _affine(
    frames: Tensor, *, angle: float = 0.0, shift: tuple[float, float] = (0, 0), shear: float = 0.0, axis: int = 0
) -> Tensor:
    """Rotated clockwise by `angle` degrees about the centre, sheared along an axis, shifted by whole pixels; bilinear."""
    turn = np.radians(angle)
    forward = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    sheared = np.eye(2)
    sheared[axis, 1 - axis] = -shear
    back = np.linalg.inv(forward @ sheared)
    height, width = frames.shape[-2:]
    center = np.array([width / 2, height / 2])
    matrix = np.column_stack([back, center - back @ (center + np.round(shift))])
    grid = sampling_grid(matrix, (height, width), of=(height, width), device=frames.device)
    grey = to_device(torch.tensor(_GREY, device="cpu"), frames.device).view(3, 1, 1)
    moved = F.grid_sample(frames - grey, grid.expand(len(frames), -1, -1, -1), align_corners=False) + grey
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def _sharpness(frames: Tensor, factor: float) -> Tensor:
    """Away from, or towards, each pixel's mean with its neighbours, in which it has a weight of 5 to their 1."""
    levels = frames.float()
    inner = levels[..., 1:-1, 1:-1]
    blurred = ((9 * F.avg_pool2d(levels, 3, stride=1) + 4 * inner) / 13).round_()
    inner.copy_(blurred.lerp_(inner, factor))
    return levels.clamp_(0, 255).to(torch.uint8)


def _solarize_add(frames: Tensor, strength: float, sign: int) -> Tensor:
    added = (frames.int() + min(128, int(110 * strength))).clamp(max=255).to(torch.uint8)
    return torch.where(frames < 128, added, frames)


def _solarize(frames: Tensor, strength: float, sign: int) -> Tensor:
    threshold = 256 - int(256 * strength)
    return tv.solarize(frames, threshold=threshold) if threshold < 256 else frames


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda frames, strength, sign: tv.autocontrast(frames),
    "equalize": lambda frames, strength, sign: tv.equalize(frames),
    "invert": lambda frames, strength, sign: tv.invert(frames),
    "rotate": lambda frames, strength, sign: _affine(frames, angle=sign * 30 * strength),
    "posterize": lambda frames, strength, sign: tv.posterize(frames, bits=max(1, 4 - int(4 * strength))),
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda frames, strength, sign: tv.adjust_saturation(frames, _factor(strength, sign)),
    "contrast": lambda frames, strength, sign: tv.adjust_contrast(frames, _factor(strength, sign)),
    "brightness": lambda frames, strength, sign: tv.adjust_brightness(frames, _factor(strength, sign)),
    "sharpness": lambda frames, strength, sign: _sharpness(frames, _factor(strength, sign)),
    "shear_x": lambda frames, strength, sign: _affine(frames, shear=sign * 0.3 * strength, axis=0),
    "shear_y": lambda frames, strength, sign: _affine(frames, shear=sign * 0.3 * strength, axis=1),
    "translate_x": lambda frames, strength, sign: _affine(frames, shift=(sign * 0.45 * strength * frames.shape[3], 0)),
    "translate_y": lambda frames, strength, sign: _affine(frames, shift=(0, sign * 0.45 * strength * frames.shape[2])),
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
    mean, std = (
        to_device(torch.tensor(values, device="cpu"), video.device).view(3, 1, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    clips = []
    for clip, key in zip(video, keys, strict=True):
        operations = draw_operations(policy, key, seed=seed, epoch=epoch)
        if not operations:
            clips.append(clip)
            continue
        frames = ((clip * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).transpose(0, 1)
        for name, strength, sign in operations:
            frames = OPERATIONS[name](frames, strength, sign)
        clips.append(((frames.transpose(0, 1).to(clip.dtype) / 255 - mean) / std).to(clip.dtype))
    return torch.stack(clips)
