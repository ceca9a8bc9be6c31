"""Masks, targets and pictures of masked pretraining."""

from __future__ import annotations

import pytest
import torch
from models.narrow import narrow_model
from torch import Tensor

from vidpipe.errors import ModelError, UsageError
from vidpipe.models import create_model
from vidpipe.models.videomae_pretrain import VideoMAEPretrain


def pretraining(**config: object) -> VideoMAEPretrain:
    model = narrow_model("videomae-pretrain", **config)
    assert isinstance(model, VideoMAEPretrain)
    return model


def drawn(model: VideoMAEPretrain, count: int = 64) -> Tensor:
    return model.draw_mask(count, torch.Generator().manual_seed(3))


def test_the_reference_hides_176_of_196_patches() -> None:
    with torch.device("meta"):
        model = create_model("videomae-pretrain", num_classes=1)
    assert isinstance(model, VideoMAEPretrain)
    mask = model.draw_mask(4)
    assert mask.device.type == "cpu"
    assert mask.shape == (4, 1568)
    assert mask.sum(1).tolist() == [176 * 8] * 4
    assert (mask.view(4, 8, 196) == mask.view(4, 8, 196)[:, :1]).all()


def test_kinds_of_masks() -> None:
    tubes = drawn(pretraining(mask="tube", mask_ratio=0.75)).view(64, 2, 16)
    assert (tubes[:, 0] == tubes[:, 1]).all()
    assert (tubes.sum(2) == 12).all()
    frames = drawn(pretraining(mask="frame", mask_ratio=0.5)).view(64, 2, 16)
    assert (frames.all(2) | ~frames.any(2)).all()
    assert (frames.sum((1, 2)) == 16).all()
    scattered = drawn(pretraining(mask="random", mask_ratio=0.75)).view(64, 2, 16)
    assert (scattered.sum((1, 2)) == 24).all()
    assert not (scattered[:, 0] == scattered[:, 1]).all(1).any()
    for masks in (tubes, scattered):  # everywhere about equally often
        assert masks.float().mean((0, 1)).sub(0.75).abs().max() < 0.2
    assert not torch.equal(tubes[0], tubes[1])


def test_masks_follow_their_generator() -> None:
    model = pretraining()
    assert torch.equal(drawn(model), drawn(model))
    assert not torch.equal(drawn(model), model.draw_mask(64, torch.Generator().manual_seed(4)))


def test_targets_are_normalised_pixels_in_order() -> None:
    model = pretraining(mask_ratio=0.75)
    video = torch.randn(2, 3, 4, 32, 32)
    mask = drawn(model, 2)
    targets = model.targets(video, mask).view(2, 24, 2 * 8 * 8, 3)
    torch.testing.assert_close(targets.mean(2), torch.zeros(2, 24, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(2), torch.ones(2, 24, 3), atol=1e-3, rtol=0)
    first = int(mask[0].nonzero()[0])
    time, row, column = first // 16, first % 16 // 4, first % 4
    pixels = video[0, :, 2 * time : 2 * time + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten(1).T
    torch.testing.assert_close(targets[0, 0], (pixels - pixels.mean(0)) / pixels.std(0), atol=1e-4, rtol=0)


def test_hidden_tubelets_do_not_reach_the_prediction() -> None:
    model = pretraining(mask_ratio=0.75)
    video = torch.randn(1, 3, 4, 32, 32)
    mask = drawn(model, 1)
    hidden = mask.view(2, 4, 4).repeat_interleave(2, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)
    with torch.no_grad():
        one, other = model(video, mask), model(torch.where(hidden, torch.randn_like(video), video), mask)
        third = model(torch.where(hidden, video, torch.randn_like(video)), mask)
    assert torch.equal(one, other)
    assert not torch.allclose(one, third, atol=1e-3)


def test_pictures_put_predictions_where_the_mask_is() -> None:
    model = pretraining(mask_ratio=0.75)
    video = torch.randn(2, 3, 4, 32, 32)
    mask = drawn(model, 2)
    pictures = model.reconstruct(video, mask)
    where = mask.view(2, 2, 4, 4).repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    where = where[:, None].expand_as(video)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    original = video * std.view(3, 1, 1, 1) + mean.view(3, 1, 1, 1)
    torch.testing.assert_close(pictures.original, original)
    for picture in pictures:
        assert torch.equal(picture[~where], pictures.original[~where])
    assert (pictures.masked[where] == 0.5).all()

    class Oracle(VideoMAEPretrain):
        def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
            assert mask is not None
            return self.targets(video, mask)

    model.__class__ = Oracle
    torch.testing.assert_close(model.reconstruct(video, mask).reconstructed, original, atol=1e-4, rtol=0)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    model = pretraining(mask_ratio=0.75)
    video = torch.randn(2, 3, 4, 32, 32)
    with pytest.raises(ModelError, match=r"expected bool \[2, 32\], got \[2, 31\]"):
        model(video, torch.ones(2, 31, dtype=torch.bool))
    with pytest.raises(ModelError, match=r"expected 24 hidden tubelets in each clip, got \[32, 32\]"):
        model(video, torch.ones(2, 32, dtype=torch.bool))
    with pytest.raises(UsageError, match="hides 0 of 32 tubelets"):
        pretraining(mask="frame", mask_ratio=0.4)
