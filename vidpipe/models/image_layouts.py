"""Published layouts of image models, brought into timm's names, in which the key maps of image ViTs and backbones read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vidpipe.models.positions import sine_positions
from vidpipe.models.state import Rename, State, joined_qkv, renamed

_IMAGE_SIDE = 224  # pixels, for which the masked autoencoder without positions in its file was published


@dataclass(frozen=True)
class ImageLayout:
    """One published layout.

    Args:
        marker: regular expression that some key must match.
        rename: how its keys become timm's.
        unused: pattern of keys, before renaming, that timm's model has no place for.
        adapt: further changes to the renamed state.
    """

    marker: str
    rename: Rename
    unused: str = r"(?!)"
    adapt: Callable[[State], State] | None = None


def in_timms_names(state: State) -> State:
    """The state of an image model in timm's names; one of no known layout, timm's among them, and a video model's as they are."""
    if any(tensor.ndim == 5 for tensor in state.values()):
        return state
    for layout in _LAYOUTS:
        if any(re.search(layout.marker, key) for key in state):
            result = renamed(state, layout.rename, unused=layout.unused)
            return layout.adapt(result) if layout.adapt else result
    return state


def _with_sine_positions(state: State) -> State:
    """Key biases of zero, and the fixed positions with which the patches were learned; the class token's is drawn.

    Without a class token in the file, its sum with its position starts from a truncated normal.
    """
    result = {key: tensor for key, tensor in state.items() if not key.endswith((".q_bias", ".v_bias"))}
    for key, query in state.items():
        if key.endswith(".q_bias"):
            value = state[key.replace("q_bias", "v_bias")]
            result[key.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    patches = sine_positions((_IMAGE_SIDE // patch) ** 2, width)
    result["pos_embed"] = torch.cat([nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02), patches], dim=1)
    return result


_LAYOUTS = (
    ImageLayout(  # Hugging Face's ViT and ViTMAE
        marker=r"^(?:vit\.)?encoder\.layer\.0\.attention\.attention\.query\.weight$",
        rename=(
            (r"^vit\.", ""),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
            (r"\.attention\.attention\.", ".attn."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"^layernorm\.", "norm."),
            (r"^classifier\.", "head."),
        ),
        unused=r"^(?:vit\.)?pooler\.|^decoder\.",
        adapt=joined_qkv,
    ),
    ImageLayout(  # the masked autoencoder of pengzhiliang/MAE-pytorch
        marker=r"^encoder\.blocks\.0\.attn\.q_bias$",
        rename=((r"^encoder\.", ""),),
        unused=r"^(?:decoder|encoder_to_decoder|mask_token)\b",
        adapt=_with_sine_positions,
    ),
    ImageLayout(  # mx-mark/VideoTransformer-pytorch's file of an image ViT
        marker=r"^transformer_layers\.layers\.0\.attentions\.0\.attn\.in_proj_weight$",
        rename=(
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"^transformer_layers\.layers\.(\d+)\.", r"blocks.\1."),
            (r"\.attentions\.0\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attentions\.0\.attn\.out_proj\.", ".attn.proj."),
            (r"\.norms\.0\.", ".norm1."),
            (r"\.norms\.1\.", ".norm2."),
            (r"\.ffns\.0\.layers\.0\.0\.", ".mlp.fc1."),
            (r"\.ffns\.0\.layers\.1\.", ".mlp.fc2."),
        ),
    ),
    ImageLayout(  # Hugging Face's ResNet
        marker=r"^(?:resnet\.)?embedder\.embedder\.convolution\.weight$",
        rename=(
            (r"^resnet\.", ""),
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.0\.", "layer1."),
            (r"^encoder\.stages\.1\.", "layer2."),
            (r"^encoder\.stages\.2\.", "layer3."),
            (r"^encoder\.stages\.3\.", "layer4."),
            (r"\.layers\.(\d+)\.", r".\1."),
            (r"\.layer\.0\.convolution\.", ".conv1."),
            (r"\.layer\.0\.normalization\.", ".bn1."),
            (r"\.layer\.1\.convolution\.", ".conv2."),
            (r"\.layer\.1\.normalization\.", ".bn2."),
            (r"\.layer\.2\.convolution\.", ".conv3."),
            (r"\.layer\.2\.normalization\.", ".bn3."),
            (r"\.shortcut\.convolution\.", ".downsample.0."),
            (r"\.shortcut\.normalization\.", ".downsample.1."),
            (r"^classifier\.1\.", "fc."),
        ),
    ),
)
