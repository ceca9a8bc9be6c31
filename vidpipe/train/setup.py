"""Putting a run's parts together from its recipe and its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from vidpipe.errors import CheckpointError, UsageError
from vidpipe.loader.reading.splits import Shards
from vidpipe.models import create_model
from vidpipe.models.videomae_pretrain import VideoMAEPretrain, VideoMAEPretrainConfig
from vidpipe.shards.manifest import Manifest, Normalization
from vidpipe.train.checkpoint import ModelDescription, Preprocessing, read_checkpoint
from vidpipe.train.distill import load_teacher
from vidpipe.train.optim import RunLength, Schedule, make_optimizer
from vidpipe.train.recipe import ModelSection, TrainRecipe
from vidpipe.train.sharding import is_dealt_out
from vidpipe.train.step import Learner


@dataclass(frozen=True)
class BuiltModel:
    """A model with its starting weights, what makes it anew, and where those weights come from, in words."""

    module: nn.Module
    description: ModelDescription
    loaded: tuple[str, ...]


def build_model(
    section: ModelSection, preprocessing: Preprocessing, *, seed: int, load_init: bool = True
) -> BuiltModel:
    """The recipe's model for these clips and classes, with its starting weights.

    Args:
        load_init: read the published weights that the recipe names; False leaves them random.

    Raises:
        UsageError: the model or its configuration is not known.
        CheckpointError: the published weights don't fit.
    """
    torch.manual_seed(seed)
    num_classes = max(1, len(preprocessing.classes))
    config = {"num_frames": preprocessing.frames, "image_size": preprocessing.size, **section.config}
    model = create_model(section.name, num_classes=num_classes, **config)
    if isinstance(model.config, VideoMAEPretrainConfig):  # its targets are pixels, so it has to undo the normalisation
        config |= {"pixel_mean": preprocessing.normalization.mean, "pixel_std": preprocessing.normalization.std}
        torch.manual_seed(seed)
        model = create_model(section.name, num_classes=num_classes, **config)
    reports = []
    if load_init and not section.init_sources:
        reports.append("model.init is null: the weights start from random ones")
    for source in section.init_sources if load_init else ():
        from vidpipe.models.init import load_pretrained

        classes = _classes_of(source)
        head = classes is None or classes == preprocessing.classes
        reports.append(str(load_pretrained(model, source, head=head)))
    description = ModelDescription(
        name=section.name, num_classes=num_classes, config=model.config.model_dump(mode="json")
    )
    return BuiltModel(model, description, tuple(reports))


def _classes_of(source: str) -> tuple[str, ...] | None:
    """The classes that a checkpoint of our own names, None for other weights."""
    try:
        return read_checkpoint(Path(source), tensors=False).preprocessing.classes
    except CheckpointError:
        return None


def other_normalizations(sources: Sequence[str], ours: Normalization) -> Iterator[str]:
    """What to say of weights that learned from pixels which were normalised otherwise."""
    from vidpipe.models.trained_on import trained_normalization

    for source in sources:
        theirs: Normalization | None
        try:
            theirs = read_checkpoint(Path(source), tensors=False).preprocessing.normalization
        except CheckpointError:  # no run of our own
            theirs = trained_normalization(source)
        if theirs is not None and not np.allclose((theirs.mean, theirs.std), (ours.mean, ours.std), atol=1e-3):
            mean, std = list(theirs.mean), list(theirs.std)
            yield (
                f"{source}: learned from clips with mean {mean} and std {std}, these have {list(ours.mean)} and "
                f"{list(ours.std)}: --set 'data.normalize={{mean: {mean}, std: {std}}}' gives it its own"
            )


def build_learner(
    fabric: Fabric, recipe: TrainRecipe, module: nn.Module, *, length: RunLength, preprocessing: Preprocessing
) -> Learner:
    """Optimiser, schedule, moving average and teacher around a model, all on Fabric's device.

    Raises:
        CheckpointError, UsageError: the teacher doesn't fit.
    """
    teacher = None
    if recipe.distill is not None:
        teacher = load_teacher(recipe.distill, module, preprocessing, device=fabric.device, autocast=fabric.autocast)
    module = module.to(fabric.device)
    # The copy is made first, because a module that is dealt out can't be copied.
    ema = ModelEmaV3(module, decay=recipe.ema, use_warmup=True) if recipe.ema is not None else None
    model = fabric.setup_module(cast(nn.Module, torch.compile(module)) if recipe.compile else module)
    if ema is not None and is_dealt_out(module):
        fabric.strategy.setup_module(ema.module)
        ema.foreach = False  # whose operations take no mixture of dealt-out parameters and whole buffers
    optimizer = make_optimizer(module, recipe.optim, scale=recipe.rate_scale)
    return Learner(
        fabric=fabric,
        recipe=recipe,
        module=module,
        model=model,
        optimizer=fabric.setup_optimizers(optimizer),
        schedule=Schedule(optimizer, recipe.schedule, length, scale=recipe.rate_scale),
        ema=ema,
        normalization=preprocessing.normalization,
        teacher=teacher,
    )


def check_labels(learner: Learner, manifest: Manifest, *, shards: Shards) -> None:
    """Refuse to train a classifier that has nothing to tell apart, or nothing to learn from.

    Args:
        manifest: of the split to train on.

    Raises:
        UsageError: there are fewer than two classes, or no labels.
    """
    if len(manifest.classes) < 2 and not isinstance(learner.module, VideoMAEPretrain):
        raise UsageError(
            f"{shards}: got the classes {list(manifest.classes)}, expected two or more to tell apart; prepare them from a "
            "--source whose class folders, or annotations, name more"
        )
    if learner.objective.needs_labels and not any(manifest.labels.values()):
        raise UsageError(f"{shards}: no video of split {manifest.split!r} has a label to learn")
