"""Mixing: pixels and labels agree, one box for all frames, and what is drawn depends on (seed, epoch, key) alone."""

from __future__ import annotations

import pytest
import torch

from vidpipe.loader.augmentation.mixing import draw_clip, mix_batch
from vidpipe.loader.augmentation.policies import Mixing

KEYS = [f"clip-{i}" for i in range(16)]


def constant_clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Clip i is filled with the number i and has label i."""
    label = torch.arange(16)
    return label.float().view(16, 1, 1, 1, 1).expand(16, 3, 4, 20, 30).clone(), label


def mixed(mixing: Mixing, *, seed: int = 0, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    video, label = constant_clips()
    return mix_batch(video, label, keys=KEYS, num_classes=16, mixing=mixing, seed=seed, epoch=epoch)


def test_cutmix_label_weight_is_the_share_of_pixels_and_the_box_is_the_same_in_all_frames() -> None:
    video, target = mixed(Mixing(cutmix=1.0))
    for index in range(16):
        own = (video[index] == index).float()
        assert torch.equal(own[:, :1].expand_as(own), own)
        assert torch.isclose(own.mean(), target[index, index])
        assert set(video[index].unique().tolist()) <= {float(index), float((index + 1) % 16)}
    assert 0.05 < target.diagonal().mean() < 0.95


def test_mixup_pixels_and_labels_have_one_weight() -> None:
    video, target = mixed(Mixing(mixup=0.8))
    partner = torch.roll(torch.arange(16.0), -1)
    expected = target.diagonal() * torch.arange(16.0) + (1 - target.diagonal()) * partner
    assert torch.allclose(video.mean(dim=(1, 2, 3, 4)), expected, atol=1e-4)
    assert torch.allclose(target.sum(dim=1), torch.ones(16))


def test_a_clip_with_a_label_is_mixed_with_none_that_has_not() -> None:
    video, label = constant_clips()
    label = torch.where(label % 3 == 0, label, -1)
    label[4] = 4  # before a clip without, behind one with a label
    for mixing in (Mixing(mixup=0.8), Mixing(cutmix=1.0)):
        mixed_video, target = mix_batch(video, label, keys=KEYS, num_classes=16, mixing=mixing, seed=0, epoch=0)
        for index in (0, 4, 6, 9, 12):
            assert torch.equal(mixed_video[index], video[index]) and target[index, index] == 1
        assert not torch.equal(mixed_video[1], video[1])
        assert target[3, [3, 4]].sum() == 1 and target[3, 4] > 0
        assert not target[label < 0, 0].any()


def test_clips_of_one_sample_are_not_mixed_with_each_other() -> None:
    video, label = constant_clips()
    mixed_video, target = mix_batch(
        video, label // 4, keys=KEYS, num_classes=4, mixing=Mixing(mixup=0.8), seed=0, epoch=0, clips_per_sample=4
    )
    weight = target.gather(1, (label // 4).unsqueeze(1)).squeeze(1)
    expected = weight * label + (1 - weight) * torch.roll(label, -4)
    assert torch.allclose(mixed_video.mean(dim=(1, 2, 3, 4)), expected, atol=1e-4) and (weight < 0.99).any()


def test_parts_of_a_batch_differ_from_the_whole_in_partners_alone() -> None:
    """What a clip keeps of its own stays; the last clip of each part is mixed with the part's first."""
    mixing = Mixing(mixup=0.8, cutmix=1.0)
    (video, label), (whole, _) = constant_clips(), mixed(mixing)
    halves = [
        mix_batch(video[part], label[part], keys=KEYS[part], num_classes=16, mixing=mixing, seed=0, epoch=0)
        for part in (slice(0, 8), slice(8, 16))
    ]
    parts, targets = (torch.cat(tensors) for tensors in zip(*halves, strict=True))
    assert torch.equal(targets.diagonal(), mixed(mixing)[1].diagonal())
    differ = [index for index in range(16) if not torch.equal(parts[index], whole[index])]
    assert differ == [7, 15] and targets[7, 0] > 0 and targets[15, 8] > 0


def test_erasing_keeps_hard_labels_and_fills_the_same_box_in_all_frames() -> None:
    video, target = mixed(Mixing(erase=1.0))
    assert torch.equal(target, torch.arange(16))
    for index in range(16):
        touched = video[index] != index
        assert 0 < touched.float().mean() < 0.5
        assert torch.equal(video[index, :, 0], video[index, :, 3])


def test_erased_boxes_lie_in_the_picture_with_the_published_areas() -> None:
    """2 % to a third of it, sides of 0.3 to 3.3 to each other, as the paper and timm have them."""
    boxes = [draw_clip(Mixing(erase=1.0), str(i), seed=0, epoch=0, height=224, width=224).erased for i in range(2000)]
    sides = [(bottom - top, right - left) for top, left, bottom, right in (box for box in boxes if box)]
    areas = [h * w / 224**2 for h, w in sides]
    assert len(areas) > 1990
    assert min(areas) > 0.019 and max(areas) < 0.34
    assert sum(areas) / len(areas) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.005)
    assert all(0.28 < h / w < 3.5 for h, w in sides)


def test_what_is_drawn_depends_on_seed_epoch_and_key_alone() -> None:
    mixing = Mixing(mixup=0.8, cutmix=1.0, erase=0.25)
    first, again = mixed(mixing), mixed(mixing)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], mixed(mixing, epoch=1)[0])
    assert not torch.equal(first[0], mixed(mixing, seed=1)[0])
    alone = draw_clip(mixing, KEYS[3], seed=0, epoch=0, height=20, width=30)
    assert alone.keep == first[1][3, 3].item() or abs(alone.keep - first[1][3, 3].item()) < 1e-6


def test_probabilities_are_kept() -> None:
    mixing = Mixing(mixup=0.8, cutmix=1.0, prob=0.5, switch_prob=0.25)
    draws = [draw_clip(mixing, str(i), seed=0, epoch=0, height=64, width=64) for i in range(4000)]
    untouched = sum(draw.keep == 1.0 and draw.cut is None for draw in draws) / 4000
    cut = sum(draw.cut is not None for draw in draws) / 4000
    assert abs(untouched - 0.5) < 0.03
    assert abs(cut - 0.125) < 0.02


def test_boxes_and_weights_are_distributed_as_the_papers_say() -> None:
    """A box's sides are a root of a Beta's value, here a uniform one; as its centre is uniform too, 2 (1/4 - 1/10 + 1/96) of the
    picture is in it on average.
    """
    boxed = [draw_clip(Mixing(cutmix=1.0), str(i), seed=0, epoch=0, height=64, width=96) for i in range(4000)]
    assert sum(1 - draw.keep for draw in boxed) / 4000 == pytest.approx(0.3208, abs=0.015)
    boxes = [draw.cut for draw in boxed if draw.cut]
    whole = [box for box in boxes if box[0] > 0 and box[1] > 0 and box[2] < 64 and box[3] < 96]
    assert len(whole) > 500 and all(abs((box[3] - box[1]) - 1.5 * (box[2] - box[0])) <= 2.5 for box in whole)
    blended = torch.tensor(
        [draw_clip(Mixing(mixup=0.8), str(i), seed=0, epoch=0, height=64, width=96).keep for i in range(4000)]
    )
    assert float(blended.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(blended.var()) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.05)


def test_off_changes_nothing() -> None:
    video, label = constant_clips()
    same_video, same_label = mix_batch(video, label, keys=KEYS, num_classes=16, mixing=Mixing(), seed=0, epoch=0)
    assert same_video is video
    assert same_label is label
