"""Key maps: which published layouts fit which model, how their keys translate, and which may be missing or unused.

Rows are tried in order; the first whose families hold the model's and whose marker matches a key of the checkpoint is
taken. `rename` is applied in order to every key. A key that is neither translated to one of the model's nor listed in
`unused`, or a key of the model that is neither given nor listed in `missing`, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vidpipe.models.adapt import (
    drop_later_blocks,
    from_flax,
    fuse_qkv,
    repeat_positions,
    share_blocks,
    start_temporal,
    start_temporal_encoder,
    take_llama_block,
)
from vidpipe.models.base import VideoModel
from vidpipe.models.state import Rename, State, renamed


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
        kernel_dims: of the patch kernel, where the keys alone don't tell images from videos.
    """

    layout: str
    families: frozenset[str]
    marker: str
    rename: Rename = ()
    adapt: Callable[[State, VideoModel], State] | None = None
    unused: str = r"(?!)"
    missing: str = r"(?!)"
    kernel_dims: int | None = None

    def fits(self, state: State) -> bool:
        """Whether a checkpoint, in its own names, has this layout."""
        if self.kernel_dims is not None:
            kernel = state.get("patch_embed.proj.weight")
            if kernel is None or kernel.ndim != self.kernel_dims:
                return False
        return any(re.search(self.marker, key) for key in state)


def find_key_map(model: VideoModel, state: State) -> KeyMap | None:
    """The first map that fits both the model and the checkpoint."""
    return next((m for m in KEY_MAPS if model.family in m.families and m.fits(state)), None)


def layouts_of(model: VideoModel) -> list[str]:
    """Names of the layouts that the model can be filled from."""
    return [m.layout for m in KEY_MAPS if model.family in m.families]


def translate(state: State, key_map: KeyMap, model: VideoModel) -> State:
    """`state` in the model's own names, without what the map lists as unused."""
    result = renamed(state, key_map.rename, unused=key_map.unused)
    return key_map.adapt(result, model) if key_map.adapt else result


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
_SCENIC: Rename = (
    (r"^embedding/", "patch_embed.proj."),
    (r"^cls_(Spatial|Temporal)Transformer$", r"\1Transformer/cls_token"),
    (r"^cls$", "Transformer/cls_token"),
    (r"^SpatialTransformer/", "spatial."),
    (r"^TemporalTransformer/", "temporal."),
    (r"^Transformer/", "encoder."),
    (r"posembed_input/pos_embedding$", "pos_embed"),
    (r"encoderblock_(\d+)/", r"blocks.\1."),
    (r"encoder_norm/", "norm."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_1/", "norm2."),
    (r"MultiHeadDotProductAttention_0/out/", "attn.proj."),
    (r"MultiHeadDotProductAttention_0/(query|key|value)/", r"attn.\1."),
    (r"MlpBlock_0/Dense_0/", "mlp.fc1."),
    (r"MlpBlock_0/Dense_1/", "mlp.fc2."),
    (r"^output_projection/", "head."),
    (r"(?:scale|kernel)$", "weight"),
)
_TO_ENCODER: Rename = ((r"^(patch_embed|blocks|norm)\.", r"encoder.\1."),)
_TO_JOINT_ENCODER: Rename = ((r"^(blocks|norm|cls_token|pos_embed)\b", r"encoder.\1"),)
FROM_IMAGES = frozenset({"vivit", "vivit-joint", "mini-vivit", "timesformer", "resnet-temporal"})
"""Families that are filled from image models too, in timm's names."""
_VIDEOMAE = frozenset({"videomae", "vit-llama"})
_LLAMA_PARTS = r"^(?:to_llama|from_llama|llama)\."

KEY_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        "LLaMA block",
        frozenset({"vit-llama"}),
        marker=r"^(?:model\.)?layers\.\d+\.(?:attention\.wq|self_attn\.q_proj)\.weight$",
        adapt=take_llama_block,
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
        "LM4VisualEncoding",
        frozenset({"vit-llama"}),
        marker=r"^llama_dim_mapper1\.weight$",
        rename=(
            *_TO_ENCODER,
            (r"^llama_dim_mapper1\.", "to_llama."),
            (r"^llama_dim_mapper2\.", "from_llama."),
            (r"^llama\.layers\.0\.(?:attention\.)?", "llama.block."),
            (r"\.feed_forward\.w1\.", ".gate."),
            (r"\.feed_forward\.w3\.", ".up."),
            (r"\.feed_forward\.w2\.", ".down."),
        ),
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
        adapt=fuse_qkv,
        unused=r"^(?:decoder|encoder_to_decoder|mask_token|videomae\.layernorm)\b",
        missing=rf"^(?:fc_norm|head)\.|{_LLAMA_PARTS}",
    ),
    KeyMap(
        "Hugging Face VideoMAE",
        _VIDEOMAE,
        marker=r"^videomae\.encoder\.layer\.0\.",
        rename=(*_HF_BLOCKS, *_TO_ENCODER),
        adapt=fuse_qkv,
        missing=_LLAMA_PARTS,
    ),
    KeyMap("VideoMAE pretraining", frozenset({"videomae-pretrain"}), marker=r"^encoder\.blocks\.0\.attn\.q_bias$"),
    KeyMap(
        "Hugging Face VideoMAE pretraining",
        frozenset({"videomae-pretrain"}),
        marker=r"^encoder_to_decoder\.weight$",
        rename=(*_HF_BLOCKS, *_TO_ENCODER),
        adapt=fuse_qkv,
    ),
    KeyMap("TimeSformer", frozenset({"timesformer"}), marker=r"^blocks\.0\.temporal_attn\.|^time_embed$"),
    KeyMap(
        "Hugging Face TimeSformer",
        frozenset({"timesformer"}),
        marker=r"^timesformer\.encoder\.layer\.0\.",
        rename=_HF_BLOCKS,
    ),
    KeyMap(
        "vidpipe",
        frozenset({"timesformer"}),  # with attention over space alone
        marker=_IMAGE_VIT_MARKER,
        kernel_dims=5,
        adapt=start_temporal,
        missing=r"^(?:time_embed|cls_token|blocks\.\d+\.temporal_(?:fc|attn\.proj)\.)",
    ),
    KeyMap(
        "image ViT",
        frozenset({"timesformer"}),
        marker=_IMAGE_VIT_MARKER,
        adapt=start_temporal,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:head\.|time_embed|cls_token|blocks\.\d+\.temporal_(?:fc|attn\.proj)\.)",
    ),
    KeyMap(
        "Hugging Face ViViT",
        frozenset({"vivit-joint"}),
        marker=r"^vivit\.(?:encoder\.)?layers?\.0\.",
        rename=(*_HF_BLOCKS, *_TO_JOINT_ENCODER),
        adapt=fuse_qkv,
        unused=r"^vivit\.pooler\.",
    ),
    KeyMap(
        "scenic ViViT",
        frozenset({"vivit", "vivit-joint"}),
        marker=r"^(?:Spatial)?Transformer/encoderblock_0/",
        rename=_SCENIC,
        adapt=from_flax,
    ),
    KeyMap("vidpipe", frozenset({"vivit-joint"}), marker=r"^encoder\.blocks\.0\.attn\.qkv\.weight$"),
    KeyMap("vidpipe", frozenset({"vivit", "mini-vivit"}), marker=r"^spatial\.blocks\.0\.attn\.qkv\.weight$"),
    KeyMap(
        "image ViT",
        frozenset({"vivit"}),
        marker=_IMAGE_VIT_MARKER,
        rename=((r"^(blocks|norm|cls_token|pos_embed)\b", r"spatial.\1"),),
        adapt=start_temporal_encoder,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:temporal|head)\.|^spatial\.cls_token$",
    ),
    KeyMap(
        "image ViT",
        frozenset({"vivit-joint"}),
        marker=_IMAGE_VIT_MARKER,
        rename=_TO_JOINT_ENCODER,
        adapt=repeat_positions,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^head\.|^encoder\.cls_token$",
    ),
    KeyMap(
        "image ViT",
        frozenset({"mini-vivit"}),
        marker=_IMAGE_VIT_MARKER,
        rename=((r"^(blocks|norm|cls_token|pos_embed)\b", r"spatial.\1"),),
        adapt=share_blocks,
        unused=_IMAGE_VIT_UNUSED,
        missing=r"^(?:temporal|head)\.|^spatial\.cls_token$|\.mix_(?:logits|weights)$",
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
        adapt=drop_later_blocks,
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
