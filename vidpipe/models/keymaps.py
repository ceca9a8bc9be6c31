"""Key maps: which published layouts fit which model, how their keys translate, and which may be missing or unused.

Rows are tried in order; the first whose families hold the model's and whose marker matches a key of the checkpoint is
taken. `rename` is applied in order to every key. A key that is neither translated to one of the model's nor listed in
`unused`, or a key of the model that is neither given nor listed in `missing`, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidpipe.models.base import VideoModel
from vidpipe.models.mini_vivit import MiniViViTConfig
from vidpipe.models.timesformer import TimeSformerConfig
from vidpipe.models.vit_llama import ViTLlamaConfig

State = dict[str, Tensor]
Rename = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyMap:
    """One published layout for some models.

    Args:
        layout: its name, for people.
        families: `VideoModel.family` of the models that it fits.
        marker: regular expression that some key of the checkpoint must match.
        rename: (pattern, replacement) pairs.
        adapt: further changes to the renamed state, for the model that is to be filled.
        unused: pattern of the checkpoint's keys, before renaming, that the model has no place for.
        missing: pattern of the model's keys that such a checkpoint doesn't hold.
    """

    layout: str
    families: frozenset[str]
    marker: str
    rename: Rename = ()
    adapt: Callable[[State, VideoModel], State] | None = None
    unused: str = r"(?!)"
    missing: str = r"(?!)"


def find_key_map(model: VideoModel, keys: list[str]) -> KeyMap | None:
    """The first map that fits both the model and the checkpoint's keys."""
    fitting = (m for m in KEY_MAPS if model.family in m.families and any(re.search(m.marker, key) for key in keys))
    return next(fitting, None)


def layouts_of(model: VideoModel) -> list[str]:
    """Names of the layouts that the model can be filled from."""
    return [m.layout for m in KEY_MAPS if model.family in m.families]


def translate(state: State, key_map: KeyMap, model: VideoModel) -> State:
    """`state` in the model's own names, without what the map lists as unused."""
    result: State = {}
    for key, tensor in state.items():
        if re.search(key_map.unused, key):
            continue
        name = key
        for pattern, replacement in key_map.rename:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return key_map.adapt(result, model) if key_map.adapt else result


def _fuse_qkv(state: State, model: VideoModel) -> State:
    """Queries, keys and values as one projection; without key biases, VideoMAE's two separate ones."""
    del model
    result = {key: tensor for key, tensor in state.items() if not re.search(r"\.attn\.(query|key|value)\.", key)}
    for key, query in state.items():
        base, dot, kind = key.rpartition("query.")
        if not dot:
            continue
        parts = [state.get(f"{base}{part}.{kind}") for part in ("key", "value")]
        if kind == "bias" and parts[0] is None and parts[1] is not None:
            result[f"{base}q_bias"], result[f"{base}v_bias"] = query, parts[1]
        else:
            result[f"{base}qkv.{kind}"] = torch.cat([query, *(part for part in parts if part is not None)])
    return result


def _share_blocks(state: State, model: VideoModel) -> State:
    """Layers that share a block: weights of the first of them, norms of each."""
    config = model.config
    assert isinstance(config, MiniViViTConfig)
    result: State = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"spatial\.blocks\.(\d+)\.(norm[12])?(.+)", key)
        if found is None:
            result[key] = tensor
            continue
        block, layer = divmod(int(found[1]), config.spatial_share)
        if found[2]:
            result[f"spatial.blocks.{block}.{found[2]}.{layer}{found[3]}"] = tensor
        elif layer == 0:
            result[f"spatial.blocks.{block}.{found[3]}"] = tensor
    return result


def _start_temporal(state: State, model: VideoModel) -> State:
    """Temporal attention as a copy of spatial attention; with `zero`, its output projection keeps its zeros."""
    config = model.config
    assert isinstance(config, TimeSformerConfig)
    if config.class_token_init == "normal":
        state = {key: tensor for key, tensor in state.items() if key != "cls_token"}
    if config.attention != "divided":
        return state
    copied = r"\.(attn\.qkv|norm1)\." if config.temporal_init == "zero" else r"\.(attn|norm1)\."
    for key, tensor in list(state.items()):
        if key.startswith("blocks.") and re.search(copied, key):
            state[re.sub(r"\.(attn|norm1)\.", r".temporal_\1.", key)] = tensor
    return state


def _drop_later_blocks(state: State, model: VideoModel) -> State:
    """Without the residual blocks that a shortened trunk doesn't have."""
    own = {key.rpartition(".conv")[0] for key in model.state_dict()}
    later = re.compile(r"(trunk\.layer\d\.\d+)\.")
    return {key: tensor for key, tensor in state.items() if not (found := later.match(key)) or found[1] in own}


def _take_llama_block(state: State, model: VideoModel) -> State:
    """The one block that the model holds, from the original names or Hugging Face's."""
    config = model.config
    assert isinstance(config, ViTLlamaConfig)
    result: State = {}
    for key, tensor in state.items():
        found = re.fullmatch(rf"(?:model\.)?layers\.{config.llama_layer}\.(.+)\.weight", key)
        name = _LLAMA_NAMES.get(found[1]) if found else None
        if name:
            result[f"llama.block.{name}.weight"] = tensor
    return result


_LLAMA_NAMES = {
    **{f"attention.{name}": name for name in ("wq", "wk", "wv", "wo")},
    **{f"self_attn.{name}_proj": f"w{name}" for name in "qkvo"},
    "feed_forward.w1": "gate",
    "feed_forward.w3": "up",
    "feed_forward.w2": "down",
    **{f"mlp.{name}_proj": name for name in ("gate", "up", "down")},
    "attention_norm": "attention_norm",
    "input_layernorm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "post_attention_layernorm": "ffn_norm",
}

_IMAGE_VIT_MARKER = r"^blocks\.0\.attn\.qkv\.weight$"
_IMAGE_VIT_UNUSED = r"^(?:head|head_dist|fc_norm|pre_logits|dist_token|decoder|mask_token)\b|^decoder_"
_HF_BLOCKS: Rename = (
    (r"^(?:videomae|timesformer|vivit)\.", ""),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^decoder\.decoder_layers\.(\d+)\.", r"decoder.blocks.\1."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attention.attention.\1."),
    (r"\.attention\.o_proj\.", r".attn.proj."),
    (r"\.attention\.attention\.q\.", r".attn.query."),
    (r"\.attention\.attention\.k\.", r".attn.key."),
    (r"\.attention\.attention\.v\.", r".attn.value."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"attention\.attention\.", "attn."),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.time_embeddings", "time_embed"),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.temporal_attention\.", r".temporal_attn."),
    (r"temporal_layernorm", "temporal_norm1"),
    (r"temporal_dense", "temporal_fc"),
)
_TO_ENCODER: Rename = ((r"^(patch_embed|blocks|norm)\.", r"encoder.\1."),)
_TO_JOINT_ENCODER: Rename = ((r"^(blocks|norm|cls_token|pos_embed)\b", r"encoder.\1"),)
_VIDEOMAE = frozenset({"videomae", "vit-llama"})
_LLAMA_PARTS = r"^(?:to_llama|from_llama|llama)\."

KEY_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        "LLaMA block",
        frozenset({"vit-llama"}),
        marker=r"^(?:model\.)?layers\.\d+\.(?:attention\.wq|self_attn\.q_proj)\.weight$",
        adapt=_take_llama_block,
        missing=r"^(?!llama\.block\.)",
    ),
    KeyMap(
        "VideoMAE pretraining",
        _VIDEOMAE,
        marker=r"^encoder\.blocks\.0\.attn\.q_bias$",
        unused=r"^(?:decoder|encoder_to_decoder|encoder\.norm|mask_token)\b",
        missing=rf"^(?:fc_norm|head)\.|{_LLAMA_PARTS}",
    ),
    KeyMap(
        "VideoMAE fine-tuned",
        _VIDEOMAE,
        marker=r"^blocks\.0\.attn\.q_bias$",
        rename=_TO_ENCODER,
        missing=_LLAMA_PARTS,
    ),
    KeyMap(
        "Hugging Face VideoMAE pretraining",
        _VIDEOMAE,
        marker=r"^encoder_to_decoder\.weight$",
        rename=(*_HF_BLOCKS, *_TO_ENCODER),
        adapt=_fuse_qkv,
        unused=r"^(?:decoder|encoder_to_decoder|mask_token|videomae\.layernorm)\b",
        missing=rf"^(?:fc_norm|head)\.|{_LLAMA_PARTS}",
    ),
    KeyMap(
        "Hugging Face VideoMAE",
        _VIDEOMAE,
        marker=r"^videomae\.encoder\.layer\.0\.",
        rename=(*_HF_BLOCKS, *_TO_ENCODER),
        adapt=_fuse_qkv,
        missing=_LLAMA_PARTS,
    ),
    KeyMap("VideoMAE pretraining", frozenset({"videomae-pretrain"}), marker=r"^encoder\.blocks\.0\.attn\.q_bias$"),
    KeyMap(
        "Hugging Face VideoMAE pretraining",
        frozenset({"videomae-pretrain"}),
        marker=r"^encoder_to_decoder\.weight$",
        rename=(*_HF_BLOCKS, *_TO_ENCODER),
        adapt=_fuse_qkv,
    ),
    KeyMap("TimeSformer", frozenset({"timesformer"}), marker=r"^blocks\.0\.temporal_attn\.|^time_embed$"),
    KeyMap(
        "Hugging Face TimeSformer",
        frozenset({"timesformer"}),
        marker=r"^timesformer\.encoder\.layer\.0\.",
        rename=_HF_BLOCKS,
    ),
    KeyMap(
        "image ViT",
        frozenset({"timesformer"}),
        marker=_IMAGE_VIT_MARKER,
        adapt=_start_temporal,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:head\.|time_embed|cls_token|blocks\.\d+\.temporal_(?:fc|attn\.proj)\.)",
    ),
    KeyMap(
        "Hugging Face ViViT",
        frozenset({"vivit-joint"}),
        marker=r"^vivit\.(?:encoder\.)?layers?\.0\.",
        rename=(*_HF_BLOCKS, *_TO_JOINT_ENCODER),
        adapt=_fuse_qkv,
        unused=r"^vivit\.pooler\.",
    ),
    KeyMap("vidpipe", frozenset({"vivit-joint"}), marker=r"^encoder\.blocks\.0\.attn\.qkv\.weight$"),
    KeyMap("vidpipe", frozenset({"vivit", "mini-vivit"}), marker=r"^spatial\.blocks\.0\.attn\.qkv\.weight$"),
    KeyMap(
        "image ViT",
        frozenset({"vivit"}),
        marker=_IMAGE_VIT_MARKER,
        rename=((r"^(blocks|norm|cls_token|pos_embed)\b", r"spatial.\1"),),
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:temporal|head)\.",
    ),
    KeyMap(
        "image ViT",
        frozenset({"mini-vivit"}),
        marker=_IMAGE_VIT_MARKER,
        rename=((r"^(blocks|norm|cls_token|pos_embed)\b", r"spatial.\1"),),
        adapt=_share_blocks,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:temporal|head)\.|\.mix_(?:logits|weights)$",
    ),
    KeyMap(
        "vidpipe",
        frozenset({"r2plus1d", "r2plus1d-perceiver", "r2plus1d-bert"}),
        marker=r"^trunk\.stem\.0\.weight$",
    ),
    KeyMap(
        "torchvision R(2+1)D",
        frozenset({"r2plus1d"}),
        marker=r"^stem\.0\.weight$",
        rename=((r"^(stem|layer\d)\.", r"trunk.\1."),),
    ),
    KeyMap(
        "torchvision R(2+1)D",
        frozenset({"r2plus1d-perceiver", "r2plus1d-bert"}),
        marker=r"^stem\.0\.weight$",
        rename=((r"^(stem|layer\d)\.", r"trunk.\1."),),
        adapt=_drop_later_blocks,
        unused=r"^fc\.",
        missing=r"^(?!trunk\.)",
    ),
    KeyMap("vidpipe", frozenset({"resnet-temporal"}), marker=r"^temporal\.pos_embed$"),
    KeyMap(
        "image backbone",
        frozenset({"resnet-temporal"}),
        marker=r"",
        rename=((r"^", "backbone."),),
        unused=r"^(?:head|fc|classifier)\.",
        missing=r"^(?!backbone\.)",
    ),
)
