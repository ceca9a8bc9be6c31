"""The backbone that goes with feature shards: its weights lie beside their splits, so that models can be put onto it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
from torch import nn

from vidpipe.errors import CheckpointError, ShardError, UsageError
from vidpipe.files import whole_file
from vidpipe.models.backbone import load_backbone, make_backbone, num_features
from vidpipe.models.fingerprint import fingerprint
from vidpipe.models.weights import read_weights
from vidpipe.recipes import nearest
from vidpipe.shards.features import FeatureSpec
from vidpipe.shards.manifest import load_manifest

BACKBONE = "backbone.safetensors"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen backbone with its weights.

    Attributes:
        name: timm's.
        weights: fingerprint of its weights.
        width: D, features of a frame.
    """

    module: nn.Module
    name: str
    weights: str
    width: int


def open_backbone(name: str, weights: str | None, *, size: int) -> Backbone:
    """The backbone `name` with published weights, or one's own.

    Args:
        weights: as `read_weights` takes it; None is timm's own for that name.
        size: side in pixels of the squares that it is to be given.

    Raises:
        UsageError: timm has no such model.
        ModelError: it is made for another size.
        CheckpointError: the weights can't be had or don't fit.
    """
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"--backbone {name}: timm has no such model{nearest(name, timm.list_models())}")
    module = make_backbone(name, size=size)
    load_backbone(module, weights or f"timm:{name}")
    return Backbone(module, name, fingerprint(module.state_dict()), num_features(module))


def save_backbone(backbone: Backbone, out: Path) -> None:
    """Write the weights beside the splits of `out`."""
    from safetensors.torch import save

    with whole_file(out / BACKBONE) as stream:
        stream.write(save(backbone.module.state_dict()))


def restore_backbone(module: nn.Module, folder: Path) -> None:
    """Fill a backbone with the weights that the features of a split were made with.

    Args:
        module: of the same architecture.
        folder: the split's.

    Raises:
        ShardError: the weights are absent, or not those that the split's manifest names.
    """
    spec, path = _spec(folder), folder.parent / BACKBONE
    if not path.is_file():
        raise ShardError(f"{path}: missing: it goes with {folder}; make the features again")
    try:
        state = read_weights(str(path))
    except CheckpointError as error:
        raise ShardError(f"{path}: damaged: {error}") from error
    if fingerprint(state) != spec.weights:
        raise ShardError(f"{path}: not the weights that {folder} was made with; make the features again")
    module.load_state_dict(state)


def check_backbone(module: nn.Module, spec: FeatureSpec, *, model: str) -> None:
    """Refuse features that were made with other weights than a model's own backbone has.

    Args:
        model: what the error calls it.

    Raises:
        CheckpointError: they were.
    """
    if fingerprint(module.state_dict()) != spec.weights:
        raise CheckpointError(
            f"{model}: its backbone has other weights than the {spec.backbone} that these features were made with; "
            "make features with its own (`vidpipe features --weights`), or use the shards with frames"
        )


def _spec(folder: Path) -> FeatureSpec:
    spec = load_manifest(folder).features
    if spec is None:
        raise ShardError(f"{folder}: holds frames, not features; make some with `vidpipe features`")
    return spec
