"""What the tests of parity share: oracles with random weights, and comparison of logits and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.models.base import VideoModel
from vidpipe.models.encoder import ClassTokenEncoder
from vidpipe.models.keymaps import find_key_map, translate

TOLERANCE = 1e-4
CLIP = (2, 3, 4, 32, 32)


def shaken(module: nn.Module) -> Any:
    """Every parameter random, so that none hides behind a zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def assert_equal_gradients(model: VideoModel, reference: nn.Module) -> None:
    key_map = find_key_map(model, reference.state_dict())
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
