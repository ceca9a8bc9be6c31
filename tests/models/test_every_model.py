"""What holds for every model, whatever its architecture."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from models.narrow import NARROW, NUM_CLASSES, narrow_model, output_of, random_clips
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from vidpipe.errors import ModelError
from vidpipe.models import create_model
from vidpipe.models.base import VideoModel

BLOCK = re.compile(r"(?!backbone)(.*(blocks|layer\d|layers)\.\d+|llama)")
# Stem, blocks in order, head.
NUM_LAYERS = {
    "mini-vivit": 1 + 2 + 1 + 1,
    "r2plus1d": 1 + 4 + 1,
    "r2plus1d-bert": 1 + 4 + 1 + 1,
    "r2plus1d-perceiver": 1 + 4 + 2 + 1,
    "resnet-temporal": 1 + 1 + 2 + 1,
    "timesformer": 1 + 3 + 1,
    "videomae": 1 + 3 + 1,
    "videomae-small": 1 + 2 + 1,
    "videomae-pretrain": 1 + 3 + 1 + 2 + 1,
    "videomae-pretrain-small": 1 + 2 + 1 + 4 + 1,
    "vit-llama": 1 + 2 + 1,
    "vit-llama-small": 1 + 1 + 1,
    "vivit": 1 + 3 + 2 + 1,
    "vivit-joint": 1 + 3 + 1,
    "vivit-tiny": 1 + 1 + 1 + 1,
}


def test_a_clips_logits_do_not_depend_on_its_neighbours(model: VideoModel) -> None:
    clips = random_clips(model, 3)
    with torch.no_grad():
        together = output_of(model, clips)
        alone = torch.cat([output_of(model, clips[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_every_frame_and_every_corner_counts(model: VideoModel) -> None:
    clips = random_clips(model, 1).requires_grad_()
    output_of(model, clips).square().sum().backward()
    if model.family == "videomae-pretrain":  # hidden tubelets aren't read
        assert 0 < (clips.grad != 0).float().mean() < 0.2
    elif model.family == "resnet-temporal":  # no gradients pass through the frozen backbone
        with torch.no_grad():
            features = model.extract_features(clips)
        features.requires_grad_()
        model(features).square().sum().backward()
        assert (features.grad != 0).any(dim=2).all()
    else:
        assert (clips.grad != 0).float().mean() > 0.99


def test_eval_is_deterministic_and_weights_survive_a_file(model_name: str, model: VideoModel, tmp_path: Path) -> None:
    clips = random_clips(model, 2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = create_model(model_name, num_classes=NUM_CLASSES, **model.config.model_dump()).eval()
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        expected = output_of(model, clips)
        assert torch.equal(output_of(model, clips), expected)
        assert torch.equal(output_of(again, clips), expected)
    assert again.config == model.config


def test_a_step_changes_all_but_the_frozen_parts(model: VideoModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {"vit-llama": "llama.", "resnet-temporal": "backbone."}.get(model.family)
    assert {name for name, _ in model.named_parameters() if frozen and name.startswith(frozen)}.isdisjoint(trainable)

    model.train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.1)
    output_of(model, random_clips(model, 4)).square().mean().backward()
    optimizer.step()

    for name, tensor in model.state_dict().items():
        if name in trainable:
            assert not torch.equal(tensor, before[name]), name
        elif frozen and name.startswith(frozen):
            assert torch.equal(tensor, before[name]), name
    if model.family == "resnet-temporal":
        assert not any(module.training for module in model.backbone.modules())
        assert model.temporal.training


def test_layer_decay_reaches_every_trainable_parameter_once(model_name: str, model: VideoModel) -> None:
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scale: dict[str, float] = {}
    decay: dict[str, float] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in scale
            scale[name], decay[name] = group["lr_scale"], group["weight_decay"]
    parameters = dict(model.named_parameters())
    assert scale.keys() == {name for name, parameter in parameters.items() if parameter.requires_grad}

    unfrozen = NUM_LAYERS[model_name] - (model.family == "resnet-temporal")
    assert sorted(set(scale.values())) == [0.5**i for i in reversed(range(unfrozen))]
    assert {name for name in scale if scale[name] == 1} >= {name for name in scale if name.startswith(("head.", "fc."))}
    stem = [name for name in scale if name.startswith(("patch_embed", "encoder.patch_embed", "trunk.stem", "project."))]
    assert stem
    assert all(scale[name] == min(scale.values()) for name in stem)

    undecayed = model.no_weight_decay()
    assert undecayed <= parameters.keys() or model_name == "timesformer"
    for name, value in decay.items():
        assert (value == 0) == (parameters[name].ndim <= 1 or name in undecayed), name


def test_coarse_groups_are_fewer(model_name: str, model: VideoModel) -> None:
    """Where there are several blocks of a kind."""
    from timm.models import group_parameters

    fine, coarse = (group_parameters(model, model.group_matcher(coarse=coarse)) for coarse in (False, True))
    alone = model_name in ("r2plus1d", "r2plus1d-bert", "vit-llama-small", "vivit-tiny")
    assert len(coarse) == len(fine) if alone else len(coarse) < len(fine)
    assert sum(map(len, coarse.values())) == sum(map(len, fine.values())) == len(list(model.parameters()))


@pytest.mark.parametrize("change", [(1, 0, 0), (0, 8, 0), (0, 0, -8)])
def test_another_shape_is_refused_with_the_numbers(model: VideoModel, change: tuple[int, int, int]) -> None:
    shape = tuple(size + delta for size, delta in zip(model.clip_shape, change, strict=True))
    with pytest.raises(ModelError) as caught:
        model(torch.zeros(1, 3, *shape))
    assert str(model.clip_shape) in str(caught.value)
    assert str(shape) in str(caught.value)


def test_bytes_and_other_layouts_are_refused(model: VideoModel) -> None:
    frames, height, width = model.clip_shape
    for video in (
        torch.zeros(1, 3, frames, height, width, dtype=torch.uint8),
        torch.zeros(1, frames, height, width, 3),
        torch.zeros(3, frames, height, width),
    ):
        with pytest.raises(ModelError, match="expected a float video"):
            model(video)


def test_other_sizes_by_option(model_name: str, model: VideoModel) -> None:
    option = "any_size" if model_name.startswith("r2plus1d") else "interpolate_positions"
    if model.family == "videomae-pretrain":
        pytest.skip("pretraining is configured for its clips")
    flexible = create_model(model_name, num_classes=NUM_CLASSES, **{**NARROW[model_name], option: True}).eval()
    flexible.load_state_dict(model.state_dict())
    frames, height, width = model.clip_shape
    if model.family == "resnet-temporal":
        height = width = 16
    with torch.no_grad():
        clips = random_clips(model, 1)
        torch.testing.assert_close(flexible(clips), model(clips), atol=1e-6, rtol=0)
        other = torch.randn(2, 3, frames * 2, height + 16 if height > 16 else 32, width + 32 if width > 16 else 32)
        assert flexible(other).isfinite().all()
        assert flexible(other).shape == (2, NUM_CLASSES)


def test_compiles_without_graph_breaks(model: VideoModel) -> None:
    torch.compiler.reset()
    clips = random_clips(model, 2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(output_of(model, clips, run=compiled), output_of(model, clips), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r2plus1d", "vivit"])
def test_compiles_with_checkpointing(name: str) -> None:
    torch.compiler.reset()
    model = narrow_model(name, checkpointing=True).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output_of(model, random_clips(model, 2), run=compiled).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm3d)} <= {1}


def test_bf16_autocast_stays_close(model: VideoModel) -> None:
    clips = random_clips(model, 2)
    with torch.no_grad():
        expected = output_of(model, clips)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = output_of(model, clips).float()
    assert (got - expected).abs().max() < 0.05 * expected.abs().max() + 0.02


def gradients(model: VideoModel, clips: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)  # stochastic depth draws the same both times
    model.zero_grad()
    output_of(model.train(), clips).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_neither_gradients_nor_statistics(model_name: str) -> None:
    plain, thrifty = (narrow_model(model_name, checkpointing=on) for on in (False, True))
    thrifty.load_state_dict(plain.state_dict())
    clips = random_clips(plain, 2)
    calls: dict[str, list[str]] = {"plain": [], "thrifty": []}
    blocks = [name for name, _ in plain.named_modules() if BLOCK.fullmatch(name)]
    for kind, model in (("plain", plain), ("thrifty", thrifty)):
        for name in blocks:
            hook = partial(lambda kind, name, *_: calls[kind].append(name), kind, name)
            model.get_submodule(name).register_forward_pre_hook(hook)
    expected, got = gradients(plain, clips), gradients(thrifty, clips)
    assert sorted(calls["plain"]) == sorted(blocks)
    assert sorted(calls["thrifty"]) == sorted(2 * blocks)
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=1e-4)
    statistics = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm3d)]
    for name in statistics:
        one, other = plain.get_submodule(name), thrifty.get_submodule(name)
        torch.testing.assert_close(one.running_var, other.running_var)
        assert one.num_batches_tracked == other.num_batches_tracked == 1
