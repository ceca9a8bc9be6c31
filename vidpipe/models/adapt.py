"""What renaming keys can't do to bring published weights into a model's own form.

Each function takes a state with the model's names, and the model that is to be filled.
"""

from __future__ import annotations

import math
import re

import torch

from vidpipe.models.base import VideoModel
from vidpipe.models.mini_vivit import MiniViViTConfig
from vidpipe.models.positions import resample_space
from vidpipe.models.state import State, joined_qkv
from vidpipe.models.timesformer import TimeSformerConfig
from vidpipe.models.vit_llama import ViTLlamaConfig
from vidpipe.models.vivit import ViViTConfig
from vidpipe.models.vivit_joint import ViViTJointConfig


def fuse_qkv(state: State, model: VideoModel) -> State:
    """`joined_qkv`, for whatever model."""
    del model
    return joined_qkv(state)


def from_flax(state: State, model: VideoModel) -> State:
    """Kernels as torch has them: outputs first, heads joined, queries, keys and values as one projection."""
    result: State = {}
    for name, tensor in state.items():
        if name.endswith(("query.weight", "key.weight", "value.weight")):
            result[name] = tensor.flatten(1).T
        elif name.endswith("attn.proj.weight"):
            result[name] = tensor.flatten(0, 1).T
        elif re.search(r"(?:query|key|value)\.bias$", name):
            result[name] = tensor.flatten()
        elif name == "patch_embed.proj.weight":
            result[name] = tensor.permute(4, 3, 0, 1, 2)
        else:
            result[name] = tensor.T if tensor.ndim == 2 else tensor
    del model
    return joined_qkv(result)


def start_temporal_encoder(state: State, model: VideoModel) -> State:
    """With `copy`, the temporal encoder's blocks as the spatial encoder's first ones."""
    config = model.config
    assert isinstance(config, ViViTConfig)
    if config.temporal_init != "copy":
        return state
    copies = {}
    for key, tensor in state.items():
        found = re.match(r"spatial\.blocks\.(\d+)\.", key)
        if found and int(found[1]) < config.temporal_depth:
            copies[key.replace("spatial", "temporal", 1)] = tensor
    return {**state, **copies}


def repeat_positions(state: State, model: VideoModel) -> State:
    """An image's positions for every tubelet-frame (Arnab et al., 2021, section 3.4)."""
    config, name = model.config, "encoder.pos_embed"
    assert isinstance(config, ViViTJointConfig)
    frames, rows, columns = config.grid
    given = state.get(name)
    if given is None or math.isqrt(given.shape[1] - 1) ** 2 != given.shape[1] - 1:
        return state
    positions = resample_space(given, (rows, columns), num_prefix=1)
    return {**state, name: torch.cat([positions[:, :1], positions[:, 1:].repeat(1, frames, 1)], dim=1)}


def share_blocks(state: State, model: VideoModel) -> State:
    """Layers that share a block: weights of the first of them, norms of each."""
    config = model.config
    assert isinstance(config, MiniViViTConfig)
    shares = {"spatial": config.spatial_share, "temporal": config.temporal_share}
    result: State = {}
    for key, tensor in start_temporal_encoder(state, model).items():
        found = re.fullmatch(r"(spatial|temporal)\.blocks\.(\d+)\.(norm[12])?(.+)", key)
        if found is None:
            result[key] = tensor
            continue
        encoder, number, norm, rest = found.groups()
        block, layer = divmod(int(number), shares[encoder])
        if norm:
            result[f"{encoder}.blocks.{block}.{norm}.{layer}{rest}"] = tensor
        elif layer == 0:
            result[f"{encoder}.blocks.{block}.{rest}"] = tensor
    return result


def start_temporal(state: State, model: VideoModel) -> State:
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


def drop_later_blocks(state: State, model: VideoModel) -> State:
    """Without the residual blocks that a shortened trunk doesn't have."""
    own = {key.rpartition(".conv")[0] for key in model.state_dict()}
    later = re.compile(r"(trunk\.layer\d\.\d+)\.")
    return {key: tensor for key, tensor in state.items() if not (found := later.match(key)) or found[1] in own}


def take_llama_block(state: State, model: VideoModel) -> State:
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
