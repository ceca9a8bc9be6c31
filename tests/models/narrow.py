"""Every model at a size that a CPU runs in milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from vidpipe.models import create_model
from vidpipe.models.base import VideoModel

_TRANSFORMER: dict[str, Any] = {"num_frames": 4, "image_size": 32, "patch_size": 8, "width": 32, "num_heads": 4}
_TRUNK: dict[str, Any] = {"num_frames": 8, "image_size": 32, "width": 8, "layers": (1, 1, 1, 1)}
_LLAMA: dict[str, Any] = {"llama_width": 64, "llama_heads": 4, "llama_hidden": 96}
NARROW: dict[str, dict[str, Any]] = {
    "mini-vivit": {**_TRANSFORMER, "spatial_depth": 4, "temporal_depth": 2, "temporal_share": 2},
    "r2plus1d": _TRUNK,
    "r2plus1d-bert": {**_TRUNK, "num_frames": 16},
    "r2plus1d-perceiver": {**_TRUNK, "num_blocks": 4, "latent_width": 32, "head_width": 16, "num_queries": 6},
    "resnet-temporal": {
        "num_frames": 4,
        "image_size": 32,
        "backbone": "test_resnet",
        "width": 32,
        "num_heads": 4,
        "depth": 2,
    },
    "timesformer": {**_TRANSFORMER, "depth": 3},
    "videomae": {**_TRANSFORMER, "depth": 3, "head_scale": 1.0},
    "videomae-small": {**_TRANSFORMER, "depth": 2, "head_scale": 1.0},
    "videomae-pretrain": {**_TRANSFORMER, "depth": 3, "decoder_width": 16, "decoder_heads": 2, "decoder_depth": 2},
    "videomae-pretrain-small": {**_TRANSFORMER, "depth": 2, "decoder_width": 16, "decoder_heads": 2},
    "vit-llama": {**_TRANSFORMER, **_LLAMA, "depth": 2, "head_scale": 1.0},
    "vit-llama-small": {**_TRANSFORMER, **_LLAMA, "depth": 1, "head_scale": 1.0},
    "vivit": {**_TRANSFORMER, "spatial_depth": 3, "temporal_depth": 2},
    "vivit-joint": {**_TRANSFORMER, "depth": 3},
    "vivit-tiny": {**_TRANSFORMER, "spatial_depth": 1, "temporal_depth": 1},
}
NUM_CLASSES = 5


def narrow_model(name: str, **config: Any) -> VideoModel:
    """A narrow model in eval mode, every parameter random: zeros that it starts from would hide what is wired wrongly."""
    model = create_model(name, num_classes=NUM_CLASSES, **{**NARROW[name], **config})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def random_clips(model: VideoModel, count: int) -> torch.Tensor:
    return torch.randn(count, 3, *model.clip_shape)


def output_of(model: VideoModel, clips: torch.Tensor, *, run: Any = None) -> torch.Tensor:
    """The model's output; pretraining gets the same mask every time.

    Args:
        run: what to call instead of the model itself, for instance its compiled form.
    """
    run = model if run is None else run
    if model.family != "videomae-pretrain":
        return run(clips)
    return run(clips, model.draw_mask(1, torch.Generator().manual_seed(0)).expand(len(clips), -1))
