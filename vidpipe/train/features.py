"""Training and evaluating on feature shards: what must fit, and the backbone that the model is given."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vidpipe.errors import UsageError
from vidpipe.features.backbone import check_backbone, restore_backbone
from vidpipe.models.resnet_temporal import ResNetTemporal
from vidpipe.shards.features import FeatureSpec
from vidpipe.shards.manifest import Manifest, find_split
from vidpipe.train.recipe import TrainRecipe


def start_from_features(recipe: TrainRecipe, module: nn.Module, manifest: Manifest, *, shards: Path) -> None:
    """Give a model the backbone that the features of the train split were made with; does nothing for shards with frames.

    So the model's checkpoints hold that backbone too, and evaluate and predict on videos.

    Args:
        manifest: of the train split.
        shards: that split's folder, or the data set's.

    Raises:
        UsageError: the model or the recipe doesn't go with these features.
        ShardError: the backbone's weights are absent or others.
    """
    spec = manifest.features
    if spec is None:
        return
    folder = find_split(shards, manifest.split)
    backbone = _backbone_of(module, spec, name=recipe.model.name)
    data, mixing = recipe.data, recipe.mixing
    if data.size != spec.size:
        raise UsageError(
            f"data.size: got {data.size}, but {folder} has features of {spec.size} x {spec.size}: set it to that"
        )
    on_pixels = {
        "rand_augment": recipe.rand_augment is not None,
        "mixing": bool(mixing.mixup or mixing.cutmix or mixing.erase),
        "data.color_jitter": data.color_jitter is not None,
        "data.affine": data.affine is not None,
        "data.clips_per_sample": data.clips_per_sample > 1,
    }
    wanted = [name for name, on in on_pixels.items() if on]
    if wanted:
        raise UsageError(f"{folder}: holds features of frames, on which {', '.join(wanted)} can't work; leave it out")
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
