"""Image models in the layouts of others than timm fill video models as timm's do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from models.checkpoints import image_vit, same, saved
from models.narrow import narrow_model
from models.parity import CLIP, TOLERANCE, shaken
from torch import Tensor

from vidpipe.errors import CheckpointError
from vidpipe.models.backbone import load_backbone
from vidpipe.models.init import load_pretrained
from vidpipe.models.positions import resample_space, sine_positions

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


def hugging_face_vit(kind: str) -> Any:
    """Of `google/vit-base-patch16-224`, its headless sister, and `facebook/vit-mae-base`."""
    if kind == "classifier":
        return shaken(transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES)))
    if kind == "headless":
        return shaken(transformers.ViTModel(transformers.ViTConfig(**SIZES)))
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(**SIZES, **decoder, mask_ratio=0.0)
    return shaken(transformers.ViTMAEForPreTraining(config))


@pytest.mark.parametrize("kind", ["classifier", "headless", "autoencoder"])
def test_vivit_of_hugging_faces_vit_gives_its_class_tokens(tmp_path: Path, kind: str) -> None:
    reference = hugging_face_vit(kind)
    reference.save_pretrained(tmp_path)
    model = narrow_model("vivit")
    report = load_pretrained(model, str(tmp_path))
    assert report.layout == "image ViT"
    assert all(name.startswith(("temporal.", "head.")) for name in report.fresh)

    video = torch.randn(*CLIP)
    frames = video[:, :, 1::2].transpose(1, 2).flatten(0, 1)
    body = reference if kind == "headless" else reference.vit
    with torch.no_grad():
        got = model.encode_frames(video)
        expected = body(frames).last_hidden_state[:, 0].view_as(got)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["mini-vivit", "timesformer"])
def test_other_models_take_hugging_faces_vit_too(tmp_path: Path, name: str) -> None:
    reference = hugging_face_vit("classifier")
    reference.save_pretrained(tmp_path)
    model = narrow_model(name)
    if name == "mini-vivit":
        with pytest.raises(CheckpointError, match=r"lacks spatial\.blocks\.1\.norm1\.1"):  # of 4 layers, given 3
            load_pretrained(model, str(tmp_path))
        model = narrow_model(name, spatial_depth=3, spatial_share=3)
    load_pretrained(model, str(tmp_path))
    query = reference.state_dict()["vit.layers.0.attention.q_proj.weight"]
    block = "spatial.blocks.0" if name == "mini-vivit" else "blocks.0"
    assert torch.equal(model.state_dict()[f"{block}.attn.qkv.weight"][:32], query)


def sine_autoencoder() -> dict[str, Tensor]:
    """As of pengzhiliang/MAE-pytorch: no class token, fixed positions, biases of queries and values."""
    state = image_vit(num_classes=0).state_dict()
    del state["cls_token"], state["pos_embed"]
    for block in range(3):
        q, _, v = torch.randn(96).chunk(3)
        del state[f"blocks.{block}.attn.qkv.bias"]
        state |= {f"blocks.{block}.attn.q_bias": q, f"blocks.{block}.attn.v_bias": v}
    decoder = {"decoder.blocks.0.attn.q_bias": torch.zeros(16), "mask_token": torch.zeros(1, 1, 16)}
    return {
        **{f"encoder.{key}": tensor for key, tensor in state.items()},
        **decoder,
        "encoder_to_decoder.weight": torch.zeros(16, 32),
    }


@pytest.mark.parametrize("name", ["timesformer", "vivit"])
def test_an_autoencoder_without_class_token_brings_its_fixed_positions(tmp_path: Path, name: str) -> None:
    state = sine_autoencoder()
    model = narrow_model(name)
    encoder = "" if name == "timesformer" else "spatial."
    before = model.state_dict()[f"{encoder}cls_token"].clone()
    report = load_pretrained(model, saved({"model": state}, tmp_path / "pretrain_mae_vit_base_mask_0.75_400e.pth"))
    assert f"{encoder}cls_token" in report.fresh and same(model, f"{encoder}cls_token", before)
    bias = model.state_dict()[f"{encoder}blocks.2.attn.qkv.bias"]
    q, v = (state[f"encoder.blocks.2.attn.{part}_bias"] for part in "qv")
    assert torch.equal(bias, torch.cat([q, torch.zeros(32), v]))
    positions = model.state_dict()[f"{encoder}pos_embed"]
    published = torch.cat([positions[:, :1], sine_positions(28 * 28, 32)], dim=1)  # 224 / 8 patches a side
    torch.testing.assert_close(positions, resample_space(published, (4, 4), num_prefix=1))
    assert 0 < positions[0, 0].std() < 0.1


def test_a_video_autoencoder_is_not_taken_for_one_of_images(tmp_path: Path) -> None:
    path = saved(narrow_model("videomae-pretrain").state_dict(), tmp_path / "videomae.pth")
    with pytest.raises(CheckpointError, match="not a layout that ViViT can be filled from"):
        load_pretrained(narrow_model("vivit"), path)


def test_names_of_mmactions_kind(tmp_path: Path) -> None:
    vit = image_vit(num_classes=0).state_dict()
    names = {
        "patch_embed.proj": "patch_embed.projection",
        "blocks": "transformer_layers.layers",
        "attn.qkv.": "attentions.0.attn.in_proj_",
        "attn.proj": "attentions.0.attn.out_proj",
        "norm1": "norms.0",
        "norm2": "norms.1",
        "mlp.fc1": "ffns.0.layers.0.0",
        "mlp.fc2": "ffns.0.layers.1",
    }
    state = {}
    for key, tensor in vit.items():
        name = key
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    model = narrow_model("timesformer")
    load_pretrained(model, saved({"state_dict": state}, tmp_path / "vit_base_patch16_224.pth"))
    assert all(same(model, key, tensor.view_as(model.state_dict()[key])) for key, tensor in vit.items())


@pytest.mark.parametrize("name", ["vivit", "mini-vivit"])
def test_the_temporal_encoder_may_start_as_the_first_spatial_blocks(tmp_path: Path, name: str) -> None:
    vit = image_vit(depth=4)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = narrow_model(name, spatial_depth=4, temporal_init="copy")
    path = saved(vit.state_dict(), tmp_path / "vit.pth")
    fresh = load_pretrained(model, path).fresh
    assert [key for key in fresh if key.startswith("temporal.blocks") and ".mix_" not in key] == []
    layer = "temporal.blocks.0.norm1.1" if name == "mini-vivit" else "temporal.blocks.1.norm1"
    assert same(model, f"{layer}.weight", vit.blocks[1].norm1.weight)
    assert same(model, "temporal.blocks.0.mlp.fc1.weight", vit.blocks[0].mlp.fc1.weight)
    assert "temporal.blocks.0.mlp.fc1.weight" in load_pretrained(narrow_model(name, spatial_depth=4), path).fresh


def test_joint_attention_starts_with_an_images_positions_in_every_frame(tmp_path: Path) -> None:
    vit = image_vit(img_size=64)
    model = narrow_model("vivit-joint", depth=3)
    report = load_pretrained(model, saved(vit.state_dict(), tmp_path / "vit.pth"))
    assert report.fresh == ("head.weight", "head.bias")
    positions = resample_space(vit.pos_embed, (4, 4), num_prefix=1)
    frames = model.encoder.pos_embed[:, 1:].unflatten(1, (2, 16))
    assert torch.equal(frames, positions[:, None, 1:].expand_as(frames))
    assert same(model, "encoder.blocks.2.mlp.fc2.weight", vit.blocks[2].mlp.fc2.weight)
    assert same(model, "encoder.norm.weight", vit.norm.weight)


def test_hugging_faces_resnet_gives_the_same_features(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(depths=[1, 2, 1, 1])
    reference = shaken(transformers.ResNetForImageClassification(config))
    reference.save_pretrained(tmp_path)
    backbone = timm.models.resnet.ResNet(timm.models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=0).eval()
    load_backbone(backbone, str(tmp_path))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.resnet(images).pooler_output.flatten(1)
        torch.testing.assert_close(backbone(images), expected, atol=1e-4, rtol=1e-4)
