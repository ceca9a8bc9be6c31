"""Encoders equal those of timm and PyTorch, and models that contain others equal them, with random weights copied over."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from models.narrow import narrow_model
from models.parity import CLIP, TOLERANCE, read_out, shaken, torch_encoder

from vidpipe.models import create_model
from vidpipe.models.init import load_pretrained
from vidpipe.models.mini_vivit import MiniViViT, SharedBlock


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
        torch.testing.assert_close(model(features), expected, atol=TOLERANCE, rtol=0)


def test_space_only_timesformer_averages_frames() -> None:
    model = narrow_model("timesformer", attention="space")
    video = torch.randn(1, 3, 1, 32, 32)
    still = video.expand(-1, -1, 4, -1, -1)
    one = narrow_model("timesformer", attention="space", num_frames=1)
    one.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(still), one(video), atol=TOLERANCE, rtol=0)


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


def test_vit_llama_is_videomae_with_the_block_between() -> None:
    model = narrow_model("vit-llama")
    plain = narrow_model("videomae", depth=2)
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    video = torch.randn(*CLIP)
    tokens = model.from_llama(model.llama.norm(model.llama.block(model.to_llama(plain.encoder(video)))))
    expected = plain.head(plain.fc_norm(tokens.mean(1)))
    torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)
