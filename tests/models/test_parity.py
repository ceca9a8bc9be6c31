"""Logits and gradients equal those of independent implementations, with random weights copied over.

Where weights have a published layout they travel through a file and `load_pretrained`, so that its key maps are tested
with the same stroke.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from models.narrow import narrow_model
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.models import create_model
from vidpipe.models.base import VideoModel
from vidpipe.models.encoder import ClassTokenEncoder
from vidpipe.models.init import load_pretrained
from vidpipe.models.keymaps import find_key_map, translate
from vidpipe.models.llama import LlamaBlock
from vidpipe.models.mini_vivit import MiniViViT, SharedBlock

transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-4
CLIP = (2, 3, 4, 32, 32)
HF_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "num_frames": 4,
    "layer_norm_eps": 1e-6,
    "num_labels": 5,
}


def shaken(module: nn.Module) -> Any:
    """Every parameter random, so that none hides behind a zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def assert_equal_gradients(model: VideoModel, reference: nn.Module) -> None:
    key_map = find_key_map(model, list(reference.state_dict()))
    assert key_map is not None
    given = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    expected = translate(given, key_map, model)
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        reference_gradient = expected[name].view_as(gradient)  # a Conv2d's kernel is a Conv3d's of one frame
        torch.testing.assert_close(gradient, reference_gradient, atol=TOLERANCE, rtol=0)


def assert_equal_classifier(
    model: VideoModel, reference: nn.Module, run: Callable[[Tensor], Tensor], *, num_frames: int = 4
) -> None:
    video = torch.randn(*CLIP)[:, :, :num_frames]
    logits, expected = model(video), run(video)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    labels = torch.tensor([1, 3])
    for output in (logits, expected):
        F.cross_entropy(output, labels).backward()
    assert_equal_gradients(model, reference)


def run_hf(reference: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda video: reference(pixel_values=video.transpose(1, 2)).logits


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_timesformer_equals_transformers(tmp_path: Path, attention: str) -> None:
    kind = {"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}[attention]
    # The oracle doesn't average frames in its space-only form: there, one frame is compared.
    num_frames = 1 if attention == "space" else 4
    sizes = {**HF_SIZES, "num_frames": num_frames, "patch_size": 8}
    reference = shaken(
        transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**sizes, attention_type=kind))
    )
    reference.save_pretrained(tmp_path)
    model = narrow_model("timesformer", attention=attention, num_frames=num_frames)
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference), num_frames=num_frames)


def test_space_only_timesformer_averages_frames() -> None:
    model = narrow_model("timesformer", attention="space")
    video = torch.randn(1, 3, 1, 32, 32)
    still = video.expand(-1, -1, 4, -1, -1)
    one = narrow_model("timesformer", attention="space", num_frames=1)
    one.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(still), one(video), atol=TOLERANCE, rtol=0)


def test_videomae_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(**HF_SIZES, patch_size=8, use_mean_pooling=True)
    reference = shaken(transformers.VideoMAEForVideoClassification(config))
    reference.fc_norm.eps = 1e-6  # the authors' value; transformers leaves torch's default
    reference.save_pretrained(tmp_path)
    model = narrow_model("videomae")
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference))


def test_videomae_pretraining_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(
        **HF_SIZES,
        patch_size=8,
        use_mean_pooling=False,
        decoder_hidden_size=16,
        decoder_num_attention_heads=2,
        decoder_num_hidden_layers=2,
        decoder_intermediate_size=64,
    )
    reference = shaken(transformers.VideoMAEForPreTraining(config))
    reference.decoder.norm.eps = 1e-6
    reference.save_pretrained(tmp_path)
    model = narrow_model("videomae-pretrain", mask_ratio=0.75)
    assert not load_pretrained(model, str(tmp_path)).fresh

    video = torch.randn(*CLIP)
    mask = model.draw_mask(2, torch.Generator().manual_seed(0))
    assert mask.sum(1).tolist() == [24, 24]
    expected = reference(pixel_values=video.transpose(1, 2), bool_masked_pos=mask)
    prediction = model(video, mask)
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(prediction, expected.logits, atol=TOLERANCE, rtol=0)
    loss = model.loss(prediction, video, mask)
    torch.testing.assert_close(loss, expected.loss, atol=TOLERANCE, rtol=0)
    loss.backward()
    expected.loss.backward()
    assert_equal_gradients(model, reference)


def test_joint_vivit_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VivitConfig(**HF_SIZES, tubelet_size=[2, 8, 8])
    reference = shaken(transformers.VivitForVideoClassification(config))
    reference.save_pretrained(tmp_path)
    model = narrow_model("vivit-joint")
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference))


def test_spatial_encoder_of_vivit_equals_timm_on_the_central_frames(tmp_path: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}
    reference = shaken(timm.create_model("vit_tiny_patch16_224", act_layer="gelu_tanh", **sizes))
    torch.save(reference.state_dict(), tmp_path / "vit.pth")
    model = narrow_model("vivit")
    report = load_pretrained(model, str(tmp_path / "vit.pth"))
    assert report.resized == ("patch_embed.proj.weight",)
    assert all(name.startswith(("temporal.", "head.")) for name in report.fresh)

    video = torch.randn(*CLIP)
    got = model.encode_frames(video)
    frames = video[:, :, 1::2].transpose(1, 2)
    expected = reference.forward_features(frames.flatten(0, 1))[:, 0].view_as(got)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    weights = torch.randn_like(got)
    for output in (got, expected):
        (output * weights).sum().backward()
    for name, parameter in reference.named_parameters():
        if name.startswith(("blocks.", "norm.", "cls_token", "pos_embed")):
            ours = model.get_parameter(f"spatial.{name}").grad
            torch.testing.assert_close(ours, parameter.grad, atol=TOLERANCE, rtol=0)
    kernel = model.patch_embed.proj.weight.grad[:, :, 1]
    torch.testing.assert_close(kernel, reference.patch_embed.proj.weight.grad, atol=TOLERANCE, rtol=0)


def torch_encoder(
    blocks: nn.ModuleList, width: int, *, num_heads: int = 4, gelu: str = "tanh"
) -> nn.TransformerEncoder:
    """The same pre-norm blocks as PyTorch's own encoder."""
    layer = nn.TransformerEncoderLayer(
        width,
        num_heads,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate=gelu),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    encoder = nn.TransformerEncoder(layer, len(blocks), enable_nested_tensor=False)
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    for theirs, ours in zip(encoder.layers, blocks, strict=True):
        state = ours.state_dict()
        renamed = {f"{a}{kind}": state[f"{b}{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
        theirs.load_state_dict(renamed)
    return encoder


def read_out(part: ClassTokenEncoder, tokens: Tensor, reference: nn.Module) -> Tensor:
    """What `part` should give for tokens [B, N, D], with `reference` in place of its blocks."""
    x = torch.cat([part.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + part.pos_embed
    return part.norm(reference(x))[:, 0]


def test_vivit_equals_two_torch_encoders() -> None:
    model = narrow_model("vivit")
    references = {name: torch_encoder(getattr(model, name).blocks, 32) for name in ("spatial", "temporal")}
    video = torch.randn(*CLIP)
    patches = model.patch_embed(video)
    tokens = [read_out(model.spatial, patches[:, t].flatten(1, 2), references["spatial"]) for t in range(2)]
    expected = model.head(read_out(model.temporal, torch.stack(tokens, dim=1), references["temporal"]))
    torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)

    expected.square().sum().backward()
    theirs = {n: [p.grad for p in references[n].layers[0].linear1.parameters()] for n in references}
    kernel = model.patch_embed.proj.weight.grad.clone()
    model.zero_grad()
    model(video).square().sum().backward()
    for name, gradients in theirs.items():
        for ours, expected_gradient in zip(getattr(model, name).blocks[0].mlp.fc1.parameters(), gradients, strict=True):
            torch.testing.assert_close(ours.grad, expected_gradient, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(model.patch_embed.proj.weight.grad, kernel, atol=TOLERANCE, rtol=0)


def test_resnet_temporal_is_timms_backbone_and_a_torch_encoder() -> None:
    model = narrow_model("resnet-temporal")
    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    video = torch.randn(*CLIP)
    with torch.no_grad():
        features = torch.stack([backbone(video[:, :, t]) for t in range(4)], dim=1)
        tokens = model.project(features)
        expected = model.head(read_out(model.temporal, tokens, torch_encoder(model.temporal.blocks, 32)))
        torch.testing.assert_close(model.extract_features(video), features, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


def test_late_bert_reads_the_trunks_columns() -> None:
    model = narrow_model("r2plus1d-bert")
    video = torch.randn(2, 3, *model.clip_shape)
    with torch.no_grad():
        columns = model.trunk(video).mean((3, 4)).transpose(1, 2)
        assert columns.shape == (2, 2, 64)
        reference = torch_encoder(model.bert.blocks, 64, num_heads=8, gelu="none")
        expected = model.fc(read_out(model.bert, columns, reference))
        torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


def test_shared_block_equals_a_timm_block_run_twice() -> None:
    vivit = narrow_model("vivit")
    config = create_model("mini-vivit", num_classes=5, width=32, num_heads=4, image_size=32, num_frames=4).config
    shared = SharedBlock(config, [0.0, 0.0]).eval()
    block = vivit.spatial.blocks[0]
    state = block.state_dict()
    for layer in "01":
        state.update({f"norm{i}.{layer}.{k}": state[f"norm{i}.{k}"] for i in "12" for k in ("weight", "bias")})
    shared.load_state_dict({name: state[name] for name in shared.state_dict() if "mix" not in name}, strict=False)
    x = torch.randn(2, 9, 32)
    assert shared.attn.head_mixing
    torch.testing.assert_close(shared(x), block(block(x)), atol=TOLERANCE, rtol=0)
    with torch.no_grad():
        shared.attn.mix_logits[1].copy_(torch.randn(4, 4))
    assert not torch.allclose(shared(x), block(block(x)), atol=1e-3)


def test_mini_vivit_without_sharing_is_vivit() -> None:
    vivit = narrow_model("vivit")
    mini = narrow_model("mini-vivit", spatial_depth=3, spatial_share=1, temporal_share=1)
    assert isinstance(mini, MiniViViT)
    state = {
        name.replace(".norm1.", ".norm1.0.").replace(".norm2.", ".norm2.0.") if ".blocks." in name else name: tensor
        for name, tensor in vivit.state_dict().items()
    }
    mini.load_state_dict(state)
    video = torch.randn(*CLIP)
    torch.testing.assert_close(mini(video), vivit(video), atol=TOLERANCE, rtol=0)


def test_r2plus1d_equals_torchvision(tmp_path: Path) -> None:
    from torchvision.models.video import r2plus1d_18

    reference = r2plus1d_18(num_classes=5).eval()
    torch.save(reference.state_dict(), tmp_path / "r2plus1d.pth")
    model = create_model("r2plus1d", num_classes=5, num_frames=4, image_size=32).eval()
    assert not load_pretrained(model, str(tmp_path / "r2plus1d.pth")).fresh
    with torch.no_grad():
        reference.fc.weight.mul_(100)
        model.fc.weight.mul_(100)
    assert_equal_classifier(model, reference, reference)


@pytest.mark.parametrize(("num_cross", "num_self"), [(1, 0), (1, 2), (2, 1)])
def test_perceiver_head_equals_perceiver_pytorch(num_cross: int, num_self: int) -> None:
    perceiver_pytorch = pytest.importorskip("perceiver_pytorch")
    model = narrow_model("r2plus1d-perceiver", num_cross=num_cross, num_self=num_self)
    reference = perceiver_pytorch.Perceiver(
        num_freq_bands=1,
        max_freq=1.0,
        depth=num_cross,
        input_axis=3,
        input_channels=64,
        num_latents=6,
        latent_dim=32,
        cross_heads=1,
        latent_heads=8,
        cross_dim_head=16,
        latent_dim_head=16,
        num_classes=5,
        fourier_encode_data=False,
        self_per_cross_attn=num_self,
    ).eval()
    theirs = dict(reference.named_parameters())
    assert len(theirs) == len([n for n, _ in model.named_parameters() if not n.startswith("trunk.")])
    pairs = perceiver_pairs(num_cross, num_self, theirs)
    with torch.no_grad():
        for ours, name in pairs.items():
            theirs[name].copy_(model.get_parameter(ours))

    features = torch.randn(2, 2, 3, 3, 64)
    logits, expected = model.attend(features.flatten(1, 3)), reference(features)
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for ours, name in pairs.items():
        torch.testing.assert_close(model.get_parameter(ours).grad, theirs[name].grad, atol=TOLERANCE, rtol=0)


def perceiver_pairs(num_cross: int, num_self: int, theirs: dict[str, Tensor]) -> dict[str, str]:
    """Our parameters' names to perceiver-pytorch's."""
    pairs = {"queries": "latents"}
    pairs.update({f"norm.{k}": f"to_logits.1.{k}" for k in ("weight", "bias")})
    pairs.update({f"head.{k}": f"to_logits.2.{k}" for k in ("weight", "bias")})
    parts = {
        "attn.norm": "{attn}.norm",
        "attn.norm_context": "{attn}.norm_context",
        "attn.to_q": "{attn}.fn.to_q",
        "attn.to_kv": "{attn}.fn.to_kv",
        "attn.to_out": "{attn}.fn.to_out",
        "ff.norm": "{ff}.norm",
        "ff.mlp.fc1": "{ff}.fn.net.0",
        "ff.mlp.fc2": "{ff}.fn.net.2",
    }
    for group in range(num_cross):
        for layer in range(1 + num_self):
            base = f"layers.{group}."
            own = f"self_attns.{layer - 1}."
            attn, ff = ("cross_attn", "cross_ff") if layer == 0 else (f"{own}0", f"{own}1")
            for ours, pattern in parts.items():
                for kind in ("weight", "bias"):
                    name = base + pattern.format(attn=attn, ff=ff) + f".{kind}"
                    if name in theirs:
                        pairs[f"layers.{group * (1 + num_self) + layer}.{ours}.{kind}"] = name
    assert sorted(pairs.values()) == sorted(theirs)
    return pairs


def test_llama_block_equals_transformers() -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, rms_norm_eps=1e-6, attn_implementation="eager"
    )
    reference = shaken(LlamaDecoderLayer(config, layer_idx=15))
    block = LlamaBlock(32, num_heads=4, hidden=48)
    names = {
        **{f"w{x}": f"self_attn.{x}_proj" for x in "qkvo"},
        **{x: f"mlp.{x}_proj" for x in ("gate", "up", "down")},
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    block.load_state_dict({f"{a}.weight": reference.state_dict()[f"{b}.weight"] for a, b in names.items()})
    x = torch.randn(2, 7, 32)
    still = torch.ones(2, 7, 8), torch.zeros(2, 7, 8)
    expected = reference(x, position_embeddings=still, attention_mask=None)
    expected = expected[0] if isinstance(expected, tuple) else expected
    got = block(x)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    got.square().sum().backward()
    expected.square().sum().backward()
    theirs = dict(reference.named_parameters())
    for ours, name in names.items():
        gradient = block.get_parameter(f"{ours}.weight").grad
        torch.testing.assert_close(gradient, theirs[f"{name}.weight"].grad, atol=TOLERANCE, rtol=0)


def test_vit_llama_is_videomae_with_the_block_between() -> None:
    model = narrow_model("vit-llama")
    plain = narrow_model("videomae", depth=2)
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    video = torch.randn(*CLIP)
    tokens = model.from_llama(model.llama.norm(model.llama.block(model.to_llama(plain.encoder(video)))))
    expected = plain.head(plain.fc_norm(tokens.mean(1)))
    torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


def test_resnet_temporal_reads_timms_features() -> None:
    model = narrow_model("resnet-temporal")
    reference = timm.create_model("test_resnet", num_classes=0)
    reference.load_state_dict(model.backbone.state_dict())
    video = torch.randn(*CLIP)
    with torch.no_grad():
        expected = torch.stack([reference.eval()(video[:, :, t]) for t in range(4)], dim=1)
    torch.testing.assert_close(model.extract_features(video), expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(model(expected), model(video), atol=TOLERANCE, rtol=0)
