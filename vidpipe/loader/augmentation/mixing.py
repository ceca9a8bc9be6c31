"""Mixing the clips of a batch on the batch's device: mixup, CutMix and erasing, with labels that follow.

What is drawn for a clip is a pure function of (seed, epoch, key): workers, resumes and devices don't matter to it. Its
partner is the next clip of another sample of the batch, so who that is depends on how the clips of a step are divided into
batches. The same box is cut from all frames of a clip: the clip stays a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidpipe.loader.augmentation.augment import keyed_rng
from vidpipe.loader.augmentation.policies import Mixing
from vidpipe.loader.transfer import to_device

_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class ClipDraw:
    """What was drawn for one clip.

    Attributes:
        keep: weight of the clip's own label; with mixup also of its pixels.
        cut: CutMix's box (top, left, bottom, right) in pixels, which comes from the partner; None without.
        erased: box that is filled with noise; None without.
        noise_seed: of that noise.
    """

    keep: float
    cut: tuple[int, int, int, int] | None
    erased: tuple[int, int, int, int] | None
    noise_seed: int


def draw_clip(mixing: Mixing, key: str, *, seed: int, epoch: int, height: int, width: int) -> ClipDraw:
    """Draw for one clip; the area of CutMix's box within the picture decides the labels' weights exactly."""
    generator = keyed_rng(f"mixing/{seed}/{epoch}/{key}")
    keep, cut = 1.0, None
    use, which, centre_y, centre_x = generator.random(4)
    if mixing.is_soft and use < mixing.prob:
        if mixing.cutmix > 0 and (mixing.mixup <= 0 or which < mixing.switch_prob):
            side = float(np.sqrt(1.0 - generator.beta(mixing.cutmix, mixing.cutmix)))
            cut = _box(centre_y, centre_x, side * height, side * width, height=height, width=width)
            keep = 1.0 - (cut[2] - cut[0]) * (cut[3] - cut[1]) / (height * width)
        else:
            keep = float(generator.beta(mixing.mixup, mixing.mixup))
    erased = None
    if mixing.erase > 0 and generator.random() < mixing.erase:
        erased = _erased_box(generator, height=height, width=width)
    return ClipDraw(keep=keep, cut=cut, erased=erased, noise_seed=int(generator.integers(2**31)))


def mix_batch(
    video: Tensor,
    label: Tensor,
    *,
    keys: Sequence[str],
    num_classes: int,
    mixing: Mixing,
    seed: int,
    epoch: int,
    clips_per_sample: int = 1,
) -> tuple[Tensor, Tensor]:
    """Mix the clips of a batch.

    Args:
        video: float [B, C, T, H, W]; it is left as it is.
        label: int64 [B], -1 for none. A clip with a label is mixed with none that has not.
        keys: the B clips' keys.
        num_classes: number of classes.
        clips_per_sample: clips of one sample that stand together in the batch; partners are of another one. A batch of one
            sample has none: mixup and CutMix leave its pixels as they are.

    Returns:
        The mixed video, and the labels: float [B, num_classes], summing to 1 for clips with a label, where clips were mixed;
        else `label`.
    """
    if not mixing.is_on:
        return video, label
    height, width = video.shape[-2:]
    draws = [draw_clip(mixing, key, seed=seed, epoch=epoch, height=height, width=width) for key in keys]
    own_places = torch.arange(len(video), device=video.device)
    next_places = own_places.roll(-clips_per_sample)
    places = torch.where((label >= 0) & (label[next_places] < 0), own_places, next_places)
    partner = video[places]
    blends = torch.tensor([1.0 if draw.cut else draw.keep for draw in draws], dtype=video.dtype, device="cpu")
    blend = to_device(blends, video.device)
    mixed = torch.lerp(partner, video, blend.view(-1, 1, 1, 1, 1))
    for index, draw in enumerate(draws):
        if draw.cut is not None:
            top, left, bottom, right = draw.cut
            mixed[index, :, :, top:bottom, left:right] = partner[index, :, :, top:bottom, left:right]
        if draw.erased is not None:
            top, left, bottom, right = draw.erased
            box = mixed[index, :, :, top:bottom, left:right]
            drawing = torch.Generator("cpu").manual_seed(draw.noise_seed)
            noise = torch.randn(box[:, 0].shape, generator=drawing, device="cpu")
            box.copy_(to_device(noise, box.device).unsqueeze(1).expand_as(box))
    if not mixing.is_soft:
        return mixed, label
    own = (F.one_hot(label.clamp(min=0), num_classes) * (label >= 0).unsqueeze(1)).to(video.dtype)
    kept = torch.tensor([draw.keep for draw in draws], dtype=video.dtype, device="cpu")
    keep = to_device(kept, video.device).unsqueeze(1)
    return mixed, own * keep + own[places] * (1 - keep)


def _erased_box(generator: np.random.Generator, *, height: int, width: int) -> tuple[int, int, int, int] | None:
    """A box that lies in the picture whole, (top, left, bottom, right); None where ten attempts gave none that does."""
    for _ in range(10):
        area = generator.uniform(*_ERASED_AREA) * height * width
        aspect = float(np.exp(generator.uniform(*np.log(_ERASED_ASPECT))))
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return top, left, top + h, left + w
    return None


def _box(
    y: float, x: float, box_height: float, box_width: float, *, height: int, width: int
) -> tuple[int, int, int, int]:
    """A box around a centre given as shares of the picture, clipped to it: (top, left, bottom, right)."""
    top, bottom = round(y * height - box_height / 2), round(y * height + box_height / 2)
    left, right = round(x * width - box_width / 2), round(x * width + box_width / 2)
    return max(top, 0), max(left, 0), min(bottom, height), min(right, width)
