"""Published layouts, made here with random weights, fill the models that they are for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import timm
import torch
from models.checkpoints import image_vit, same, saved
from models.narrow import narrow_model
from models.parity import CLIP
from safetensors.torch import save_file
from torch import Tensor

from vidpipe.errors import CheckpointError
from vidpipe.models import create_model
from vidpipe.models.init import inflate, load_pretrained

# --- VideoMAE


def test_videomae_official_pretraining_fills_the_classifier(tmp_path: Path) -> None:
    pretrained = narrow_model("videomae-pretrain")
    extras = {"epoch": 799, "args": argparse.Namespace(model="pretrain_videomae_base_patch16_224")}
    path = saved({"model": pretrained.state_dict(), **extras}, tmp_path / "checkpoint.pth")
    for name in ("videomae", "vit-llama"):
        model = narrow_model(name, depth=3)
        report = load_pretrained(model, path)
        assert report.layout == "VideoMAE pretraining"
        assert {part.split(".")[0] for part in report.fresh} <= {"fc_norm", "head", "to_llama", "from_llama", "llama"}
        for key, tensor in pretrained.encoder.state_dict().items():
            assert key.startswith("norm.") or same(model, f"encoder.{key}", tensor)


def test_videomae_official_fine_tuned_gives_the_same_logits(tmp_path: Path) -> None:
    source, model = narrow_model("videomae"), narrow_model("videomae")
    official = {key.removeprefix("encoder."): tensor for key, tensor in source.state_dict().items()}
    assert not load_pretrained(model, saved({"module": official}, tmp_path / "mp_rank_00_model_states.pt")).fresh
    video = torch.randn(*CLIP)
    assert torch.equal(model(video), source(video))


def test_a_classifier_of_other_classes_starts_afresh(tmp_path: Path) -> None:
    source, model = narrow_model("videomae"), narrow_model("videomae")
    official = {key.removeprefix("encoder."): tensor for key, tensor in source.state_dict().items()}
    official.update({"head.weight": torch.zeros(9, 32), "head.bias": torch.zeros(9)})
    before = model.head.weight.clone()
    report = load_pretrained(model, saved(official, tmp_path / "weights.pth"))
    assert report.fresh == ("head.weight", "head.bias")
    assert "2 start afresh (head.weight, head.bias)" in str(report)
    assert torch.equal(model.head.weight, before)


def test_older_hugging_face_names(tmp_path: Path) -> None:
    """Files on the hub predate the names that today's transformers has in memory."""
    source, model = narrow_model("videomae"), narrow_model("videomae")
    names = {
        "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
        "blocks": "videomae.encoder.layer",
        "attn.q_bias": "attention.attention.q_bias",
        "attn.v_bias": "attention.attention.v_bias",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "head.": "classifier.",
    }
    state: dict[str, Tensor] = {}
    for key, tensor in source.state_dict().items():
        name = key.removeprefix("encoder.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name.endswith("attn.qkv.weight"):
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.attention.{part}")] = piece.contiguous()
        else:
            state[name] = tensor
    save_file(state, tmp_path / "model.safetensors")
    assert not load_pretrained(model, str(tmp_path)).fresh
    video = torch.randn(*CLIP)
    assert torch.equal(model(video), source(video))


# --- ViViT, Mini-ViViT, TimeSformer from image models


@pytest.mark.parametrize("how", ["central", "average"])
def test_vivit_from_an_image_vit(tmp_path: Path, how: str) -> None:
    vit = image_vit()
    model = narrow_model("vivit", tubelet_init=how)
    load_pretrained(model, saved(vit.state_dict(), tmp_path / "vit.pth"))
    kernel = model.patch_embed.proj.weight
    image_kernel = vit.patch_embed.proj.weight
    if how == "central":
        assert torch.equal(kernel[:, :, 1], image_kernel)
        assert kernel[:, :, 0].abs().max() == 0
    else:
        torch.testing.assert_close(kernel.sum(2), image_kernel)
        assert torch.equal(kernel[:, :, 0], kernel[:, :, 1])


def test_inflated_kernels_place_their_weight() -> None:
    kernel = torch.randn(4, 3, 2, 2)
    assert inflate(kernel, num_frames=1, how="central").squeeze(2).equal(kernel)
    three = inflate(kernel, num_frames=3, how="central")
    assert three[:, :, 1].equal(kernel)
    assert three[:, :, ::2].abs().max() == 0


def test_positions_of_another_image_size_are_interpolated(tmp_path: Path) -> None:
    vit = image_vit(img_size=64)
    model = narrow_model("vivit")
    report = load_pretrained(model, saved(vit.state_dict(), tmp_path / "vit.pth"))
    assert "spatial.pos_embed" in report.resized
    assert torch.equal(model.spatial.pos_embed[:, :1], vit.pos_embed[:, :1])


def test_mini_vivit_takes_every_other_layer_and_all_norms(tmp_path: Path) -> None:
    vit = image_vit(depth=4)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = narrow_model("mini-vivit", spatial_depth=4)
    load_pretrained(model, saved(vit.state_dict(), tmp_path / "vit.pth"))
    for layer in range(4):
        block = model.spatial.blocks[layer // 2]
        assert torch.equal(block.norm2[layer % 2].weight, vit.blocks[layer].norm2.weight)
    for shared, first in ((0, 0), (1, 2)):
        assert torch.equal(model.spatial.blocks[shared].attn.qkv.weight, vit.blocks[first].attn.qkv.weight)
        assert torch.equal(model.spatial.blocks[shared].mlp.fc2.bias, vit.blocks[first].mlp.fc2.bias)


@pytest.mark.parametrize("temporal_init", ["copy", "zero"])
def test_timesformer_starts_as_its_image_model_and_can_leave_it(tmp_path: Path, temporal_init: str) -> None:
    vit = image_vit(num_classes=0).eval()
    sizes = {"num_frames": 4, "image_size": 32, "patch_size": 8, "width": 32, "num_heads": 4, "depth": 3}
    model = create_model("timesformer", num_classes=5, temporal_init=temporal_init, drop_path=0.0, **sizes)
    report = load_pretrained(model, saved(vit.state_dict(), tmp_path / "vit.pth"))
    assert report.layout == "image ViT"
    block = model.blocks[1]
    assert torch.equal(block.temporal_attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
    assert torch.equal(block.temporal_norm1.bias, vit.blocks[1].norm1.bias)

    # A still clip with no time in it is the image, as temporal attention adds nothing yet.
    image = torch.randn(2, 3, 32, 32)
    logits = model(image[:, :, None].expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(logits, model.head(vit(image)), atol=1e-5, rtol=0)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the projection that starts at zero hides the rest from the first step
        optimizer.zero_grad()
        model(torch.randn(*CLIP)).square().sum().backward()
        optimizer.step()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_timesformer_from_a_masked_autoencoder(tmp_path: Path) -> None:
    state = image_vit(num_classes=0).state_dict()
    state |= {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, 32)}
    path = saved({"model": state}, tmp_path / "mae_pretrain_vit_base.pth")
    model = narrow_model("timesformer", class_token_init="normal", tubelet_frames=2, tubelet_init="average")
    before = model.cls_token.clone()
    report = load_pretrained(model, path)
    assert "cls_token" in report.fresh
    assert torch.equal(model.cls_token, before)
    assert same(model, "blocks.2.mlp.fc1.weight", state["blocks.2.mlp.fc1.weight"])


def test_a_timesformer_of_attention_over_space_is_no_image_model(tmp_path: Path) -> None:
    source = narrow_model("timesformer", attention="space")
    path = saved({"weights": source.state_dict(), "ema": None}, tmp_path / "last.ckpt")
    model = narrow_model("timesformer", attention="space")
    report = load_pretrained(model, path)
    assert (report.layout, report.fresh) == ("vidpipe", ())
    assert same(model, "head.weight", source.head.weight)
    divided = narrow_model("timesformer")
    assert load_pretrained(divided, path).fresh[0] == "time_embed"
    assert same(divided, "head.weight", source.head.weight)


def test_timesformer_official(tmp_path: Path) -> None:
    source, model = narrow_model("timesformer"), narrow_model("timesformer", num_frames=8)
    official = {f"model.{key}": tensor for key, tensor in source.state_dict().items()}
    kernel = official["model.patch_embed.proj.weight"]
    official["model.patch_embed.proj.weight"] = kernel.squeeze(2)
    path = saved({"epoch": 14, "model_state": official, "cfg": "TRAIN: ..."}, tmp_path / "TimeSformer.pyth")
    report = load_pretrained(model, path)
    assert set(report.resized) == {"time_embed", "patch_embed.proj.weight"}
    assert same(model, "patch_embed.proj.weight", kernel)
    assert not report.fresh


# --- LLaMA


def llama_state(layout: str) -> dict[str, Tensor]:
    names = {
        "original": ("attention.{}", ("wq", "wk", "wv", "wo"), "feed_forward.{}", ("w1", "w3", "w2")),
        "hugging-face": ("self_attn.{}_proj", tuple("qkvo"), "mlp.{}_proj", ("gate", "up", "down")),
    }[layout]
    norms = {
        "original": ("attention_norm", "ffn_norm"),
        "hugging-face": ("input_layernorm", "post_attention_layernorm"),
    }[layout]
    prefix = "" if layout == "original" else "model."
    state = {f"{prefix}embed_tokens.weight": torch.randn(10, 64), "output.weight": torch.randn(10, 64)}
    for layer in range(3):
        base = f"{prefix}layers.{layer}."
        shapes = [(64, 64)] * 4 + [(96, 64), (96, 64), (64, 96)]
        parts = [names[0].format(n) for n in names[1]] + [names[2].format(n) for n in names[3]]
        state |= {f"{base}{part}.weight": torch.randn(*shape) for part, shape in zip(parts, shapes, strict=True)}
        state |= {f"{base}{norm}.weight": torch.randn(64) for norm in norms}
        state[f"{base}rotary_emb.inv_freq"] = torch.randn(4)
    return state


@pytest.mark.parametrize("layout", ["original", "hugging-face"])
def test_the_frozen_block_comes_from_llama_and_stays_frozen(tmp_path: Path, layout: str) -> None:
    state = llama_state(layout)
    if layout == "original":
        torch.save(state, tmp_path / "consolidated.00.pth")
    else:
        files = {key: f"model-0000{1 + ('layers.1' in key)}-of-00002.safetensors" for key in state}
        for file in set(files.values()):
            save_file({key: state[key] for key in state if files[key] == file}, tmp_path / file)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
        (tmp_path / "model-00001-of-00002.safetensors").unlink()  # holds none of the block's keys: isn't read

    model = narrow_model("vit-llama", llama_layer=1)
    others = {name: t.clone() for name, t in model.state_dict().items() if not name.startswith("llama.block.")}
    report = load_pretrained(model, str(tmp_path))
    assert report.loaded == 9
    prefix = "layers.1." if layout == "original" else "model.layers.1."
    up, query = ("feed_forward.w3", "attention.wq") if layout == "original" else ("mlp.up_proj", "self_attn.q_proj")
    assert same(model, "llama.block.up.weight", state[f"{prefix}{up}.weight"])
    assert same(model, "llama.block.wq.weight", state[f"{prefix}{query}.weight"])
    assert all(same(model, name, tensor) for name, tensor in others.items())
    assert not any(p.requires_grad for p in model.llama.parameters())


def test_lm4visualencodings_own_checkpoints_give_the_same_logits(tmp_path: Path) -> None:
    source, model = narrow_model("vit-llama"), narrow_model("vit-llama")
    names = {
        "encoder.": "",
        "to_llama.": "llama_dim_mapper1.",
        "from_llama.": "llama_dim_mapper2.",
        "llama.block.w": "llama.layers.0.attention.w",
        "llama.block.gate.": "llama.layers.0.feed_forward.w1.",
        "llama.block.up.": "llama.layers.0.feed_forward.w3.",
        "llama.block.down.": "llama.layers.0.feed_forward.w2.",
        "llama.block.": "llama.layers.0.",
    }
    state = {}
    for key, tensor in source.state_dict().items():
        ours = next((ours for ours in names if key.startswith(ours)), "")
        state[names.get(ours, "") + key.removeprefix(ours)] = tensor
    report = load_pretrained(model, saved({"model": state, "epoch": 29}, tmp_path / "checkpoint-best.pth"))
    assert (report.layout, report.fresh) == ("LM4VisualEncoding", ())
    video = torch.randn(*CLIP)
    assert torch.equal(model(video), source(video))


def test_a_llama_of_several_devices_is_refused(tmp_path: Path) -> None:
    for part in ("00", "01"):
        torch.save(llama_state("original"), tmp_path / f"consolidated.{part}.pth")
    with pytest.raises(CheckpointError, match="split over several devices"):
        load_pretrained(narrow_model("vit-llama"), str(tmp_path))


# --- convolutional models


def test_r2plus1d_trunk_fills_a_shortened_one(tmp_path: Path) -> None:
    source = narrow_model("r2plus1d")
    official = {key.removeprefix("trunk."): tensor for key, tensor in source.state_dict().items()}
    path = saved(official, tmp_path / "r2plus1d_18.pth")
    model = narrow_model("r2plus1d-perceiver", num_blocks=3)
    report = load_pretrained(model, path)
    assert all(not name.startswith("trunk.") for name in report.fresh)
    for name, tensor in model.trunk.state_dict().items():
        assert torch.equal(tensor, official[name])


def test_a_backbone_comes_from_timm(tmp_path: Path) -> None:
    backbone = timm.create_model("test_resnet", num_classes=11)
    model = narrow_model("resnet-temporal")
    load_pretrained(model, saved(backbone.state_dict(), tmp_path / "resnet.pth"))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name])
