"""RandAugment: every operation keeps a clip a clip, the same in all frames, drawn from (seed, epoch, key) alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from loader.pictures import changed_by
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vidpipe.loader.augmentation.policies import RandAugment
from vidpipe.loader.augmentation.randaugment import OPERATIONS, draw_operations, rand_augment
from vidpipe.shards.manifest import Normalization


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_does_the_same_to_equal_frames(name: str) -> None:
    frame = torch.randint(0, 256, (1, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = frame.expand(5, -1, -1, -1)
    for sign in (-1, 1):
        result = changed_by(name, frames, 0.7, sign)
        assert result.dtype == torch.uint8
        assert result.shape == frames.shape
        assert torch.equal(result, result[:1].expand_as(result))
    if name != "auto_contrast":
        assert not torch.equal(result, frames)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_takes_all_strengths(name: str) -> None:
    frames = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    none, most = (changed_by(name, frames, strength, 1) for strength in (0.0, 1.0))
    assert none.shape == most.shape == frames.shape
    if name not in ("auto_contrast", "equalize", "invert"):  # which have no strength
        assert torch.equal(none, frames if name != "posterize" else frames & 0xF0)
        assert not torch.equal(most, none)


@pytest.mark.parametrize(
    ("name", "sign", "theirs"),
    [
        ("rotate", 1, {"angle": 21.0}),
        ("shear_x", -1, {"shear": [math.degrees(math.atan(-0.21)), 0.0]}),
        ("shear_y", 1, {"shear": [0.0, math.degrees(math.atan(0.21))]}),
        ("translate_x", 1, {"translate": [round(0.315 * 80), 0]}),
        ("translate_y", -1, {"translate": [0, round(-0.315 * 60)]}),
    ],
)
def test_geometry_is_torchvisions(name: str, sign: int, theirs: dict[str, object]) -> None:
    """But for the picture's own border, which torchvision fades to grey twice."""
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    frames = torch.stack([x * 3, y * 4, x + y]).clamp(max=255).to(torch.uint8)[None]
    neutral = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    expected = tv.affine(
        frames, **{**neutral, **theirs}, interpolation=tv.InterpolationMode.BILINEAR, fill=[124.0, 116.0, 104.0]
    )
    difference = (changed_by(name, frames, 0.7, sign).int() - expected.int()).abs()
    assert (difference > 1).float().mean() < 0.03


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", tv.adjust_brightness),
        ("color", tv.adjust_saturation),
        ("contrast", tv.adjust_contrast),
        ("sharpness", tv.adjust_sharpness),
        ("posterize", lambda frames, _: tv.posterize(frames, bits=2)),
        ("solarize", lambda frames, _: tv.solarize(frames, threshold=77)),
        ("invert", lambda frames, _: tv.invert(frames)),
    ],
)
def test_colours_are_torchvisions(name: str, theirs: Callable[[Tensor, float], Tensor], sign: int) -> None:
    """But for rounding."""
    frames = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = theirs(frames, 1 + sign * 0.63)
    assert (changed_by(name, frames, 0.7, sign).int() - expected.int()).abs().max() <= 1


def test_a_clip_gets_the_same_in_any_batch_and_other_things_in_another_epoch() -> None:
    video = torch.randn(40, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    keys = [f"clip {number}" for number in range(40)]

    def run(which: list[int], epoch: int = 0) -> torch.Tensor:
        return rand_augment(
            video[which],
            keys=[keys[i] for i in which],
            policy=RandAugment(),
            normalization=Normalization(),
            seed=0,
            epoch=epoch,
        )

    together = run([*range(40)])
    alone = [run([number]) for number in range(40)]
    assert torch.equal(together, torch.cat(alone)) and not torch.equal(together, video)
    drawn = [draw_operations(RandAugment(), key, seed=0, epoch=0) for key in keys]
    untouched = [number for number, operations in enumerate(drawn) if not operations]
    assert untouched and torch.equal(together[untouched], video[untouched])
    assert not torch.equal(together, run([*range(40)], epoch=1))


def test_the_policys_numbers_are_kept() -> None:
    drawn = [draw_operations(RandAugment(ops=4, magnitude=7), str(i), seed=0, epoch=0) for i in range(1000)]
    strengths = [strength for operations in drawn for _, strength, _ in operations]
    assert sum(map(len, drawn)) / 1000 == pytest.approx(2.0, abs=0.1)
    assert sum(strengths) / len(strengths) == pytest.approx(0.7, abs=0.01)
    assert {name for operations in drawn for name, _, _ in operations} == set(OPERATIONS)
