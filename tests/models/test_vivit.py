"""ViViT without a temporal encoder: the mean of the tubelet-frames' tokens."""

from __future__ import annotations

import torch
from models.narrow import narrow_model, random_clips
from timm.models import group_parameters
from timm.optim import create_optimizer_v2


def test_the_mean_knows_no_order_of_tubelets_and_the_temporal_encoder_does() -> None:
    mean, encoder = (narrow_model("vivit", tubelet_frames=1, temporal_depth=depth) for depth in (0, 2))
    clips = random_clips(mean, 3)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(mean(clips[:, :, order]), mean(clips), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(encoder(clips[:, :, order]), encoder(clips), atol=1e-3)
        tokens = mean.encode_frames(clips)
        torch.testing.assert_close(mean(clips), mean.head(tokens.mean(dim=1)))


def test_the_mean_is_batch_invariant_and_reads_other_lengths() -> None:
    model = narrow_model("vivit", temporal_depth=0, interpolate_positions=True)
    clips = random_clips(model, 3)
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in clips])
        torch.testing.assert_close(model(clips), alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(clips.repeat(1, 1, 2, 1, 1)), model(clips), atol=1e-5, rtol=1e-4)


def test_the_mean_has_no_parameters_to_decay_or_group() -> None:
    model = narrow_model("vivit", temporal_depth=0)
    names = dict(model.named_parameters())
    assert not any(name.startswith("temporal") for name in names)
    assert model.no_weight_decay() == {"spatial.cls_token", "spatial.pos_embed"}
    assert sum(map(len, group_parameters(model, model.group_matcher()).values())) == len(names)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert scales == {0.5**i for i in range(1 + 3 + 1)}  # stem, spatial blocks, head
