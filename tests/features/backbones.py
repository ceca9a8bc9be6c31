"""A small backbone with random weights in a file."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

NAME = "test_resnet"


def save_weights(path: Path, *, seed: int = 0) -> nn.Module:
    """Write random weights of `NAME`, with a classifier as published ones have; gives the model without it."""
    torch.manual_seed(seed)
    model = timm.create_model(NAME)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    save_file(model.state_dict(), path)
    return model.reset_classifier(0) or model.eval()
