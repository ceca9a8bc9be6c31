"""R(2+1)D and its heads equal independent implementations, with random weights copied over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.narrow import narrow_model
from models.parity import TOLERANCE, assert_equal_classifier, read_out, torch_encoder
from torch import Tensor

from vidpipe.errors import CheckpointError
from vidpipe.models import create_model
from vidpipe.models.init import load_pretrained


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


def test_a_trunk_of_caffe2s_widths_equals_that_of_ig65m(tmp_path: Path) -> None:
    """Whose published files have these numbers of channels, and this epsilon."""
    from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

    layers = (1, 2, 1, 1)
    reference = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, list(layers), R2Plus1dStem, num_classes=359)
    for stage, planes, between in (
        (reference.layer2, 128, 288),
        (reference.layer3, 256, 576),
        (reference.layer4, 512, 1152),
    ):
        stage[0].conv2[0] = Conv2Plus1D(planes, planes, between)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eps = 1e-3
    torch.save(reference.eval().state_dict(), tmp_path / "ig65m.pth")
    config = {"num_frames": 8, "image_size": 32, "layers": layers}
    model = create_model("r2plus1d-bert", num_classes=5, caffe2=True, **config).eval()
    assert all(not name.startswith("trunk.") for name in load_pretrained(model, str(tmp_path / "ig65m.pth")).fresh)
    video = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(reference.stem(video)))))
        torch.testing.assert_close(model.trunk(video), expected, atol=TOLERANCE, rtol=TOLERANCE)
    plain = create_model("r2plus1d-bert", num_classes=5, **config)
    with pytest.raises(CheckpointError, match="made for another size of R2Plus1DBert"):
        load_pretrained(plain, str(tmp_path / "ig65m.pth"))


def test_late_bert_reads_the_trunks_columns() -> None:
    model = narrow_model("r2plus1d-bert")
    video = torch.randn(2, 3, *model.clip_shape)
    with torch.no_grad():
        columns = model.trunk(video).mean((3, 4)).transpose(1, 2)
        assert columns.shape == (2, 2, 64)
        reference = torch_encoder(model.bert.blocks, 64, num_heads=8, gelu="none")
        expected = model.fc(read_out(model.bert, columns, reference))
        torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


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
