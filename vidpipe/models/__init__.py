"""Video models: one file each, made by name.

    model = create_model("vivit", num_classes=400, num_frames=16)
    logits = model(video)      # video: float32 [B, 3, T, H, W], normalised; logits: [B, num_classes]

Adding a model is a new file with a `VideoModel` and a row in `MODELS`; nothing else is edited.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vidpipe.errors import UsageError
from vidpipe.recipes import nearest, validate

if TYPE_CHECKING:
    from vidpipe.models.base import VideoModel
    from vidpipe.models.summary import ModelSummary

__all__ = ["MODELS", "ModelEntry", "create_model", "list_models"]


class ModelEntry(NamedTuple):
    """Where a model lives (`module:Class`, imported when asked for), what it is, and its own configuration defaults."""

    target: str
    description: str
    defaults: Mapping[str, Any] = MappingProxyType({})


_VIT_SMALL = {"width": 384, "num_heads": 6}
_VIVIT_TINY = {
    "num_frames": 8,
    "image_size": 32,
    "patch_size": 8,
    "width": 96,
    "spatial_depth": 3,
    "temporal_depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}

MODELS: dict[str, ModelEntry] = {
    "mini-vivit": ModelEntry("vidpipe.models.mini_vivit:MiniViViT", "ViViT whose spatial blocks run twice each"),
    "r2plus1d": ModelEntry("vidpipe.models.r2plus1d:R2Plus1D", "R(2+1)D-18"),
    "r2plus1d-bert": ModelEntry(
        "vidpipe.models.r2plus1d_bert:R2Plus1DBert", "R(2+1)D-34 with a late temporal transformer"
    ),
    "r2plus1d-perceiver": ModelEntry(
        "vidpipe.models.r2plus1d_perceiver:R2Plus1DPerceiver", "R(2+1)D-18 blocks read by Perceiver attention"
    ),
    "resnet-temporal": ModelEntry(
        "vidpipe.models.resnet_temporal:ResNetTemporal", "frozen ResNet-50 and a temporal transformer"
    ),
    "timesformer": ModelEntry("vidpipe.models.timesformer:TimeSformer", "TimeSformer-B, divided space-time attention"),
    "videomae": ModelEntry("vidpipe.models.videomae:VideoMAE", "VideoMAE ViT-B/16x2 classifier"),
    "videomae-small": ModelEntry(
        "vidpipe.models.videomae:VideoMAE", "VideoMAE ViT-S/16x2 classifier", MappingProxyType(_VIT_SMALL)
    ),
    "videomae-pretrain": ModelEntry(
        "vidpipe.models.videomae_pretrain:VideoMAEPretrain", "VideoMAE ViT-B/16x2 masked autoencoder"
    ),
    "videomae-pretrain-small": ModelEntry(
        "vidpipe.models.videomae_pretrain:VideoMAEPretrain",
        "VideoMAE ViT-S/16x2 masked autoencoder",
        MappingProxyType({**_VIT_SMALL, "decoder_width": 192, "decoder_heads": 3}),
    ),
    "vit-llama": ModelEntry("vidpipe.models.vit_llama:ViTLlama", "VideoMAE ViT-B with a frozen LLaMA block"),
    "vit-llama-small": ModelEntry(
        "vidpipe.models.vit_llama:ViTLlama", "VideoMAE ViT-S with a frozen LLaMA block", MappingProxyType(_VIT_SMALL)
    ),
    "vivit": ModelEntry("vidpipe.models.vivit:ViViT", "ViViT-B/16x2 factorised encoder"),
    "vivit-joint": ModelEntry("vidpipe.models.vivit_joint:ViViTJoint", "ViViT-B/16x2, joint space-time attention"),
    "vivit-tiny": ModelEntry(
        "vidpipe.models.vivit:ViViT", "narrow ViViT factorised encoder for a CPU", MappingProxyType(_VIVIT_TINY)
    ),
}


def create_model(name: str, *, num_classes: int, **config: Any) -> VideoModel:
    """The model `name` with random weights.

    Args:
        name: one of `MODELS`.
        num_classes: number of logits; models without a classifier (pretraining) don't use it.
        config: fields of the model's configuration that differ from its defaults.

    Raises:
        UsageError: an unknown name, an unknown key or a value that is not allowed; the message names the nearest ones.
    """
    if name not in MODELS:
        raise UsageError(f"no model {name!r}{nearest(name, MODELS)}; `vidpipe list models` shows all")
    if num_classes < 1:
        raise UsageError(f"model {name}: num_classes: got {num_classes}, expected at least 1")
    entry = MODELS[name]
    model_class: type[VideoModel] = pkgutil.resolve_name(entry.target)
    settings = validate(model_class.config_class, {**entry.defaults, **config}, where=f"model {name}")
    return model_class(settings, num_classes=num_classes)


def list_models() -> dict[str, ModelSummary]:
    """Name to summary of every model; parameters and GMAC are counted when they are read."""
    from vidpipe.models.summary import ModelSummary

    return {name: ModelSummary(name=name, description=entry.description) for name, entry in MODELS.items()}
