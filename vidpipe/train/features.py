"""Training and evaluating on feature shards: what must fit, and the backbone that the model is given."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vidpipe.errors import ShardError, UsageError
from vidpipe.features.backbone import check_backbone, restore_backbone
from vidpipe.loader.reading.splits import Shards
from vidpipe.models.resnet_temporal import ResNetTemporal
from vidpipe.shards.features import FeatureSpec
from vidpipe.shards.manifest import Manifest, find_split
from vidpipe.train.data import features_folder
from vidpipe.train.recipe import TrainRecipe


def start_from_features(
    recipe: TrainRecipe, module: nn.Module, manifest: Manifest, *, shards: Shards, views: Manifest | None = None
) -> None:
    """Give a model the backbone that the features of the train split were made with; does nothing for shards with frames.

    So the model's checkpoints hold that backbone too, and evaluate and predict on videos.

    Args:
        manifest: of the train split.
        shards: that split's folder, or the data set's.
        views: manifest of the split that is evaluated.

    Raises:
        UsageError: the model or the recipe doesn't go with these features.
        ShardError: the backbone's weights are absent or others, or those of the split that is evaluated are.
    """
    spec = manifest.features
    if spec is None:
        return
    folder = find_split(features_folder(shards), manifest.split)
    backbone = _backbone_of(module, spec, name=recipe.model.name)
    data, mixing = recipe.data, recipe.mixing
    if data.size != spec.size:
        raise UsageError(
            f"data.size: got {data.size}, but {folder} has features of {spec.size} x {spec.size}: set it to that"
        )
    refused = {
        "rand_augment": recipe.rand_augment is not None,
        "mixing": bool(mixing.mixup or mixing.cutmix or mixing.erase),
        "data.normalize": data.normalize is not None,
        "data.color_jitter": data.color_jitter is not None,
        "data.affine": data.affine is not None,
        "data.clips_per_sample": data.clips_per_sample > 1,
        "data.where": data.where is not None,
        "data.balance": data.balance is not None,
        "data.shuffle=windowed": data.shuffle == "windowed",
        "data.on_bad=skip": data.on_bad == "skip",
    }
    wanted = [name for name, on in refused.items() if on]
    if wanted:
        raise UsageError(
            f"{folder}: holds features of frames, with which {', '.join(wanted)} can't be had; leave it out"
        )
    made = views.features if views is not None else None
    if made is not None and (made.backbone, made.weights) != (spec.backbone, spec.weights):
        raise ShardError(
            f"{folder}: the features of split {manifest.split!r} are of another backbone than those evaluated"
        )
    restore_backbone(backbone, folder)


def check_features(module: nn.Module, spec: FeatureSpec, *, checkpoint: Path, name: str) -> None:
    """Refuse features that a checkpoint's model wouldn't have made itself.

    Args:
        name: of the model.

    Raises:
        UsageError: the model takes no features, or those of another backbone.
        CheckpointError: its backbone has other weights.
    """
    check_backbone(_backbone_of(module, spec, name=name), spec, model=str(checkpoint))


def _backbone_of(module: nn.Module, spec: FeatureSpec, *, name: str) -> nn.Module:
    if not isinstance(module, ResNetTemporal):
        raise UsageError(f"these shards hold features of frames, which resnet-temporal takes, but not {name}")
    config = module.config
    backbone = getattr(config, "backbone", None)
    if backbone != spec.backbone:
        raise UsageError(f"model.backbone: got {backbone}, but the features are of {spec.backbone}: set it to that")
    return module.backbone
