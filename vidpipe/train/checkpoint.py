"""Checkpoints: everything that a run needs to go on, and that evaluation and prediction need to use its model.

A checkpoint is one file that `torch.load(..., weights_only=True)` reads: tensors and plain containers, no code. Where the
model was dealt out among processes it is a folder with the same content (`vidpipe.models.sharded`). A run folder holds
`last.ckpt` and `best.ckpt`; where a checkpoint is asked for, the run folder may be given.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from vidpipe.errors import CheckpointError, UsageError, one_line
from vidpipe.models import create_model
from vidpipe.models.frozen import read_frozen
from vidpipe.models.misfit import misfit
from vidpipe.models.sharded import Layout, deal_out, is_sharded, read_plain, read_sharded
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.shards.codecs import CodecSpec
from vidpipe.shards.manifest import Normalization
from vidpipe.video.spec import ClipSpec

FORMAT = "vidpipe-checkpoint"
FORMAT_VERSION = 1
LAST = "last.ckpt"
BEST = "best.ckpt"


class Preprocessing(BaseModel):
    """How the clips were made that the model learned from; prediction on a video file does exactly the same.

    Attributes:
        clip: how clips were cut from a video and sized when the shards were written.
        codec: how the shards store them.
        normalization: applied to pixels in [0, 1].
        frames: of the model's clip.
        stride: native source frames between two of them; None as stored.
        size: side of the square crop in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    classes: tuple[str, ...]
    clip: ClipSpec
    codec: CodecSpec
    normalization: Normalization
    frames: int
    stride: int | None
    size: int


class ModelDescription(BaseModel):
    """What `create_model` needs to make the model anew."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    num_classes: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read.

    Attributes:
        step: optimiser steps taken.
        epoch: epochs finished.
        metrics: of the last evaluation, for instance `val_top1`.
        recipe: the resolved recipe.
        frozen: file beside the checkpoint with the part of the state that training doesn't change; None for most models.
        weights: the model's state; `ema` is the moving average of it, where one was kept.
        training: the states of optimiser, schedule, loader and so on, by name.
    """

    path: Path
    step: int
    epoch: int
    metrics: dict[str, float]
    recipe: dict[str, Any]
    model: ModelDescription
    preprocessing: Preprocessing
    frozen: str | None
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    training: dict[str, Any]

    def best_weights(self) -> dict[str, Tensor]:
        """The moving average if there is one, else the weights themselves."""
        return self.ema if self.ema is not None else self.weights


def pack(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint as the plain containers that are written."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "metrics": dict(checkpoint.metrics),
        "recipe": checkpoint.recipe,
        "model": checkpoint.model.model_dump(mode="json"),
        "preprocessing": checkpoint.preprocessing.model_dump(mode="json"),
        "frozen": checkpoint.frozen,
        "weights": checkpoint.weights,
        "ema": checkpoint.ema,
        "training": checkpoint.training,
    }


def find_checkpoint(path: Path, *, which: Literal["best", "last"] = "best") -> Path:
    """The checkpoint for a path that may be a run folder (its best, else its last; or the other way round).

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file() or is_sharded(path):
        return path
    names = (BEST, LAST) if which == "best" else (LAST, BEST)
    for name in names:
        if (path / name).is_file() or is_sharded(path / name):
            return path / name
        if (path / name).is_symlink():
            raise CheckpointError(f"{path / name}: leads to {(path / name).readlink()}, which is not there")
    if path.is_dir():
        raise CheckpointError(
            f"{path}: no checkpoint in this folder; expected {BEST} or {LAST}, as `vidpipe train` writes"
        )
    raise CheckpointError(f"{path}: no such checkpoint or run folder")


def read_checkpoint(
    path: Path, *, which: Literal["best", "last"] = "best", layout: Layout | None = None, tensors: bool = True
) -> Checkpoint:
    """Read a checkpoint, or that of a run folder.

    Args:
        layout: how tensors are dealt out among processes; by default all are whole, on the CPU.
        tensors: False reads all but the tensors, where that saves time; what stands in their places can't be used.

    Raises:
        CheckpointError: it is absent, damaged, not vidpipe's, or of a newer format.
    """
    path = find_checkpoint(path, which=which)
    try:
        if is_sharded(path):
            state = read_sharded(path, layout=layout) if tensors else read_plain(path)
        else:
            state = _read_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises whatever its unpickler and zip reader do
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {one_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of `vidpipe train` (weights to start from go into model.init)")
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version}, this vidpipe reads version {FORMAT_VERSION}")
    if tensors and not is_sharded(path):
        state = _with_frozen_part(state, path.resolve().parent)
        state = deal_out(state, layout=layout) if layout is not None else state
    try:
        return Checkpoint(
            path=path,
            step=int(state["step"]),
            epoch=int(state["epoch"]),
            metrics={str(key): float(value) for key, value in state["metrics"].items()},
            recipe=state["recipe"],
            model=ModelDescription.model_validate(state["model"]),
            preprocessing=Preprocessing.model_validate(state["preprocessing"]),
            frozen=state["frozen"],
            weights=state["weights"],
            ema=state["ema"],
            training=state["training"],
        )
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path}: damaged: {one_line(error)}") from error


def _read_file(path: Path) -> Any:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):  # torch's own words are about other ways to save
            raise ValueError("no zip archive, as `vidpipe train` writes them, or its end is missing")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _with_frozen_part(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A checkpoint's content, with the part that it leaves to a file beside it."""
    if not isinstance(state.get("frozen"), str):
        return state
    part = read_frozen(folder, state["frozen"])
    return {**state, **{name: {**state[name], **part} for name in ("weights", "ema") if state.get(name)}}


def build_model(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's model with its best weights, in eval mode, on the CPU.

    Raises:
        CheckpointError: the weights don't fit the model that the checkpoint describes.
    """
    description = checkpoint.model
    try:
        model = create_model(description.name, num_classes=description.num_classes, **description.config)
    except UsageError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    load_weights(model, checkpoint.best_weights(), path=checkpoint.path)
    return model.eval()


def build_classifier(checkpoint: Checkpoint) -> nn.Module:
    """Like `build_model`, for a checkpoint whose model names classes.

    Raises:
        CheckpointError: it is one of pretraining, or the weights don't fit.
    """
    model = build_model(checkpoint)
    if isinstance(model, VideoMAEPretrain):
        raise CheckpointError(
            f"{checkpoint.path}: is of pretraining and knows no classes: fine-tune from it (model.init)"
        )
    return model


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, path: Path) -> None:
    """Load weights that must fit exactly.

    Raises:
        CheckpointError: one line with the first names and shapes that don't fit.
    """
    problem = misfit(model.state_dict(), weights)
    if problem:
        raise CheckpointError(f"{path}: doesn't fit the model: it {problem}")
    model.load_state_dict(dict(weights))


def check_classes(checkpoint: Checkpoint, classes: tuple[str, ...], *, shards: str) -> None:
    """Compare the classes of shards with those that the model learned.

    Raises:
        CheckpointError: they differ; the message names the first difference.
    """
    what = class_difference(checkpoint.preprocessing.classes, classes, places=("the checkpoint", "the shards"))
    if what is not None:
        raise CheckpointError(f"{checkpoint.path} and {shards} don't belong together: {what}")


def class_difference(known: tuple[str, ...], classes: tuple[str, ...], *, places: tuple[str, str]) -> str | None:
    """The first difference of two lists of classes, None if there is none.

    Args:
        places: what the message calls where they are from.
    """
    here, there = places
    if len(known) != len(classes):
        return f"{len(known)} classes in {here}, {len(classes)} in {there}"
    for number, (one, other) in enumerate(zip(known, classes, strict=True)):
        if one != other:
            return f"class {number} is {one!r} in {here}, {other!r} in {there}"
    return None
