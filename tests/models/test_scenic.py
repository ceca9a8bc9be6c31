"""scenic's ViViT checkpoints: read from Flax's files, and the same logits as its forward pass written with its own axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models.narrow import narrow_model
from torch import Tensor
from torch.nn import functional as F

from vidpipe.errors import CheckpointError
from vidpipe.models.init import load_pretrained

TOLERANCE = 1e-4
CLIP = (2, 3, 4, 32, 32)


def scenic_tree(*, depths: dict[str, int], width: int, grids: dict[str, int]) -> dict[str, Any]:
    """Random parameters as scenic's ViViT has them: flat names, Flax's shapes; 4 heads, tubelets 2x8x8, 5 classes."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (2, 8, 8, 3, width),
        "embedding/bias": (width,),
        "output_projection/kernel": (width, 5),
        "output_projection/bias": (5,),
    }
    for encoder, depth in depths.items():
        shapes["cls" if encoder == "Transformer" else f"cls_{encoder}"] = (1, 1, width)
        shapes[f"{encoder}/posembed_input/pos_embedding"] = (1, 1 + grids[encoder], width)
        shapes |= {f"{encoder}/encoder_norm/{kind}": (width,) for kind in ("scale", "bias")}
        for layer in range(depth):
            base = f"{encoder}/encoderblock_{layer}"
            for norm in "01":
                shapes |= {f"{base}/LayerNorm_{norm}/{kind}": (width,) for kind in ("scale", "bias")}
            attention = f"{base}/MultiHeadDotProductAttention_0"
            for part in ("query", "key", "value"):
                shapes[f"{attention}/{part}/kernel"] = (width, 4, width // 4)
                shapes[f"{attention}/{part}/bias"] = (4, width // 4)
            shapes[f"{attention}/out/kernel"] = (4, width // 4, width)
            shapes[f"{attention}/out/bias"] = (width,)
            for number, (inner, outer) in enumerate(((width, 4 * width), (4 * width, width))):
                shapes[f"{base}/MlpBlock_0/Dense_{number}/kernel"] = (inner, outer)
                shapes[f"{base}/MlpBlock_0/Dense_{number}/bias"] = (outer,)
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def scenic_encoder(p: dict[str, Any], encoder: str, tokens: Tensor, depth: int) -> Tensor:
    """The class token that scenic's encoder gives for tokens [B, N, D], written with Flax's axes."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = p[f"{encoder}/{name}/scale"] / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred * scale + p[f"{encoder}/{name}/bias"]

    cls = p["cls" if encoder == "Transformer" else f"cls_{encoder}"].expand(len(tokens), -1, -1)
    x = torch.cat([cls, tokens], 1) + p[f"{encoder}/posembed_input/pos_embedding"]
    for layer in range(depth):
        base = f"encoderblock_{layer}"
        attention = f"{encoder}/{base}/MultiHeadDotProductAttention_0"
        y = norm(x, f"{base}/LayerNorm_0")
        q, k, v = (
            torch.einsum("bnd,dhe->bnhe", y, p[f"{attention}/{part}/kernel"]) + p[f"{attention}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        weights = (torch.einsum("bnhe,bmhe->bhnm", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        y = torch.einsum("bhnm,bmhe,hed->bnd", weights, v, p[f"{attention}/out/kernel"])
        x = x + y + p[f"{attention}/out/bias"]
        y = norm(x, f"{base}/LayerNorm_1")
        for number in (0, 1):
            dense = f"{encoder}/{base}/MlpBlock_0/Dense_{number}"
            y = y @ p[f"{dense}/kernel"] + p[f"{dense}/bias"]
            y = F.gelu(y, approximate="tanh") if number == 0 else y
        x = x + y
    return norm(x, "encoder_norm")[:, 0]


def write_flax(tree: dict[str, Tensor], path: Path) -> None:
    """A train state as `flax.serialization` writes it, with arrays in the optimiser's state that aren't parameters."""
    msgpack = pytest.importorskip("msgpack")

    def packed(array: Tensor) -> Any:
        content = (tuple(array.shape), str(array.dtype).removeprefix("torch."), array.numpy().tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    nested: dict[str, Any] = {}
    for name, array in tree.items():
        *folders, leaf = name.split("/")
        node = nested
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = packed(array)
    bias = tree["output_projection/bias"]
    halves = {str(number): packed(half) for number, half in enumerate(bias.split(3))}
    nested["output_projection"]["bias"] = {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": halves}
    state = {"global_step": 7, "optimizer": {"state": {"momentum": packed(bias)}, "target": nested}}
    path.write_bytes(msgpack.packb(state, strict_types=True))


def scenic_patches(p: dict[str, Any], video: Tensor) -> Tensor:
    """[B, T', H', W', D] of a clip, from a channels-last convolution."""
    cut = video.unfold(2, 2, 2).unfold(3, 8, 8).unfold(4, 8, 8)
    return torch.einsum("bcthwuyx,uyxcd->bthwd", cut, p["embedding/kernel"]) + p["embedding/bias"]


def test_vivit_equals_scenics_from_its_checkpoint(tmp_path: Path) -> None:
    depths = {"SpatialTransformer": 3, "TemporalTransformer": 2}
    p = scenic_tree(depths=depths, width=32, grids={"SpatialTransformer": 16, "TemporalTransformer": 2})
    write_flax(p, tmp_path / "checkpoint")
    model = narrow_model("vivit")
    report = load_pretrained(model, str(tmp_path / "checkpoint"))
    assert (report.layout, report.fresh) == ("scenic ViViT", ())
    video = torch.randn(*CLIP)
    patches = scenic_patches(p, video)
    frames = [scenic_encoder(p, "SpatialTransformer", patches[:, t].flatten(1, 2), 3) for t in range(2)]
    token = scenic_encoder(p, "TemporalTransformer", torch.stack(frames, 1), 2)
    expected = token @ p["output_projection/kernel"] + p["output_projection/bias"]
    torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


def test_joint_vivit_equals_scenics_from_its_checkpoint(tmp_path: Path) -> None:
    p = scenic_tree(depths={"Transformer": 3}, width=32, grids={"Transformer": 32})
    write_flax(p, tmp_path / "checkpoint")
    model = narrow_model("vivit-joint")
    assert not load_pretrained(model, str(tmp_path / "checkpoint")).fresh
    video = torch.randn(*CLIP)
    token = scenic_encoder(p, "Transformer", scenic_patches(p, video).flatten(1, 3), 3)
    expected = token @ p["output_projection/kernel"] + p["output_projection/bias"]
    torch.testing.assert_close(model(video), expected, atol=TOLERANCE, rtol=0)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for content in (b"\x81\xa1", b"\x81\xa6params\x01", b"\x82"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="checkpoint: "):
            load_pretrained(narrow_model("vivit"), str(path))
