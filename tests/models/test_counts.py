"""Parameters and multiply-accumulates of the reference sizes, counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidpipe.models import create_model, list_models
from vidpipe.train.recipe import load_train_recipe


def on_meta(name: str, num_classes: int, **config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return create_model(name, num_classes=num_classes, **config)


def count(module: torch.nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize(
    ("name", "num_classes", "config", "expected"),
    [
        ("vivit", 400, {}, 115_062_928),
        (
            "vivit",
            400,
            {"temporal_depth": 0},
            115_062_928 - 28_366_848,
        ),  # 4 blocks of 7,087,872, positions, token, norm
        ("vivit-joint", 400, {}, 88_954_000),
        ("mini-vivit", 400, {}, 72_557_584),
        ("mini-vivit", 400, {"temporal_share": 2}, 58_389_136),
        ("timesformer", 400, {}, 121_566_352),
        ("timesformer", 600, {}, 121_720_152),
        ("videomae", 174, {}, 86_361_006),
        ("videomae-small", 174, {}, 21_946_926),
        ("videomae-pretrain", 1, {}, 94_210_944),
        ("videomae-pretrain-small", 1, {}, 24_029_376),
        ("r2plus1d", 400, {}, 31_505_325),
        ("r2plus1d", 51, {}, 31_326_288),
    ],
)
def test_parameters(name: str, num_classes: int, config: dict[str, Any], expected: int) -> None:
    assert count(on_meta(name, num_classes, **config)) == expected


@pytest.mark.parametrize(("name", "trainable"), [("vit-llama", 92_652_462), ("vit-llama-small", 25_092_654)])
def test_frozen_language_block(name: str, trainable: int) -> None:
    model = on_meta(name, 174)
    assert count(model, trainable=True) == trainable
    assert count(model.get_submodule("llama")) == count(model) - trainable == 202_387_456


@pytest.mark.parametrize(
    ("num_blocks", "shape", "parameters"),
    [
        (4, (128, 8, 28, 28), 1_929_865),
        (6, (256, 4, 14, 14), 7_804_601),
        (7, (512, 2, 7, 7), 17_137_693),
        (8, (512, 2, 7, 7), 31_300_125),
    ],
)
def test_shortened_trunk(num_blocks: int, shape: tuple[int, ...], parameters: int) -> None:
    model = on_meta("r2plus1d-perceiver", 51, num_blocks=num_blocks)
    trunk = model.get_submodule("trunk")
    assert count(trunk) == parameters
    assert tuple(trunk(torch.zeros(1, 3, 16, 112, 112, device="meta")).shape) == (1, *shape)


@pytest.mark.parametrize(
    ("recipe", "millions"),
    [
        ("r2plus1d-perceiver-6self", 28.6),
        ("r2plus1d-perceiver-2self", 11.8),
        ("r2plus1d-perceiver", 7.6),
        ("r2plus1d-perceiver-7blocks", 7.6),
        ("r2plus1d-perceiver-6blocks-6self", 28.6),
        ("r2plus1d-perceiver-4blocks-6self", 28.6),
        ("r2plus1d-perceiver-4blocks-12self", 57.2),
        ("r2plus1d-perceiver-cross", 3.4),
        ("r2plus1d-perceiver-self", 4.2),
    ],
)
def test_attention_of_the_ablations_has_the_size_of_the_original_table(recipe: str, millions: float) -> None:
    section = load_train_recipe(recipe).model
    model = on_meta(section.name, 51, **(section.model_extra or {}))
    attention = count(model) - count(model.get_submodule("trunk"))
    assert attention / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("name", "gmac"),
    [
        ("vivit", 283.3),
        ("timesformer", 195.8),
        ("videomae", 180.3),
        ("videomae-small", 56.9),
        ("r2plus1d", 40.5),
    ],
)
def test_multiply_accumulates(name: str, gmac: float) -> None:
    assert list_models()[name].gmac == pytest.approx(gmac, abs=0.06)


def test_a_summary_counts_frozen_parameters_apart() -> None:
    summary = list_models()["resnet-temporal"]
    assert summary.parameters - summary.trainable_parameters == 23_508_032
    assert (summary.num_frames, summary.image_size) == (32, 224)
