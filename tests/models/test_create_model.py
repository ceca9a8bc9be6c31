"""Models by name: what is refused, and with which words."""

from __future__ import annotations

import pytest

from vidpipe.errors import ModelError, UsageError
from vidpipe.models import MODELS, create_model, list_models


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no model 'vivt'; did you mean vivit"):
        create_model("vivt", num_classes=4)
    with pytest.raises(UsageError, match="unknown key 'num_frame'; did you mean num_frames"):
        create_model("vivit", num_classes=4, num_frame=16)
    with pytest.raises(UsageError, match="no timm model of that name; did you mean resnet50"):
        create_model("resnet-temporal", num_classes=4, backbone="resnett50")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("vivit", {"num_frames": 7}, "num_frames 7 is not a multiple of tubelet_frames 2"),
        ("videomae", {"image_size": 100}, "image_size 100 is not a multiple of patch_size 16"),
        ("timesformer", {"num_heads": 7}, "width 768 is not a multiple of the number of heads 7"),
        ("mini-vivit", {"spatial_share": 5}, "spatial_depth 12 is not a multiple of spatial_share 5"),
        ("r2plus1d-perceiver", {"num_blocks": 9}, "num_blocks 9: the trunk has 8"),
        ("r2plus1d-perceiver", {"num_cross": 0, "num_self": 0}, "at least one attention layer"),
        ("r2plus1d-perceiver", {"num_cross": 0, "num_blocks": 6}, "must be 256, the trunk's channels"),
        ("vivit", {"drop_path": 1.0}, "drop_path: got 1.0"),
    ],
)
def test_configurations_that_do_not_add_up(name: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"model {name}: .*{message}"):
        create_model(name, num_classes=4, **config)


def test_a_backbone_of_one_size_says_which() -> None:
    with pytest.raises(ModelError, match="backbone vit_tiny_patch16_224: takes 224 x 224, not 112 x 112"):
        create_model("resnet-temporal", num_classes=4, backbone="vit_tiny_patch16_224", image_size=112)


def test_a_model_has_classes() -> None:
    with pytest.raises(UsageError, match="num_classes: got 0"):
        create_model("vivit", num_classes=0)


def test_perceiver_attention_alone() -> None:
    sizes = {"num_frames": 4, "image_size": 32, "width": 8, "layers": (1, 1, 1, 1), "num_blocks": 4}
    alone = create_model("r2plus1d-perceiver", num_classes=4, num_cross=0, num_self=1, latent_width=64, **sizes)
    assert "queries" not in dict(alone.named_parameters())
    assert len(alone.layers) == 1
    cross = create_model("r2plus1d-perceiver", num_classes=4, num_cross=1, num_self=0, **sizes)
    assert [layer.attn.norm_context is not None for layer in cross.layers] == [True]


def test_every_model_is_listed_with_its_cost() -> None:
    summaries = list_models()
    assert summaries.keys() == MODELS.keys()
    line = str(summaries["vivit-tiny"])
    assert "8 x 32^2, 0.45 M parameters, 0.019 GMAC per clip" in line
    assert "(23.5 M frozen)" in str(summaries["resnet-temporal"])
