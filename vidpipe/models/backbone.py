"""Frozen image backbones: any of timm's models, without its classifier."""

from __future__ import annotations

import re
from typing import Any, cast

import timm
from torch import nn

from vidpipe.errors import CheckpointError, ModelError
from vidpipe.models.image_layouts import in_timms_names
from vidpipe.models.misfit import misfit
from vidpipe.models.weights import read_weights
from vidpipe.shards.manifest import Normalization

_CLASSIFIER = re.compile(r"(?:head|fc|classifier)\.")
_OURS = "backbone."  # its prefix in a `resnet-temporal`


def make_backbone(name: str, *, size: int) -> nn.Module:
    """timm's model `name` with random weights, in eval mode and without gradients.

    Args:
        size: H and W of its input.

    Returns:
        a module from [N, 3, size, size] to features [N, D].

    Raises:
        ModelError: it is made for one other size only.
    """
    backbone: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    settings = cast(dict[str, Any], backbone.pretrained_cfg)
    if settings.get("fixed_input_size") and settings["input_size"][1] != size:
        raise ModelError(
            f"backbone {name}: takes {settings['input_size'][1]} x {settings['input_size'][2]}, not {size} x {size}"
        )
    return backbone.requires_grad_(False).eval()


def own_normalization(backbone: nn.Module) -> Normalization:
    """What timm's weights for a backbone were trained with."""
    settings = cast(dict[str, Any], backbone.pretrained_cfg)
    return Normalization(mean=settings["mean"], std=settings["std"])


def num_features(backbone: nn.Module) -> int:
    """D of a backbone."""
    return int(cast(int, backbone.num_features))


def load_backbone(backbone: nn.Module, source: str) -> None:
    """Fill a backbone with published weights, or with those of a `resnet-temporal` of one's own.

    Args:
        source: as `read_weights` takes it.

    Raises:
        CheckpointError: it can't be read or doesn't fit; the message names the first keys that don't.
    """
    raw = in_timms_names(read_weights(source))
    ours = {key.removeprefix(_OURS): tensor for key, tensor in raw.items() if key.startswith(_OURS)}
    state = ours or {key: tensor for key, tensor in raw.items() if not _CLASSIFIER.match(key)}
    problem = misfit(backbone.state_dict(), state)
    if problem:
        raise CheckpointError(f"weights {source}: not those of this backbone: it {problem}")
    backbone.load_state_dict(state)
