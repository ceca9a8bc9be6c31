"""Checkpoints in published layouts, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vidpipe.models.base import VideoModel


def image_vit(**config: Any) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **config})


def saved(state: dict[str, Any], path: Path) -> str:
    torch.save(state, path)
    return str(path)


def same(model: VideoModel, name: str, tensor: Tensor) -> bool:
    return torch.equal(model.state_dict()[name], tensor)
