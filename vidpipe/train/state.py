"""The state of a run: what a checkpoint is made of, and how a run goes on from one."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

import vidpipe
from vidpipe.errors import CheckpointError, UsageError, one_line
from vidpipe.models.fingerprint import fingerprint
from vidpipe.models.frozen import frozen_part
from vidpipe.models.sharded import Layout, split_tensors
from vidpipe.recipes import validate
from vidpipe.train.checkpoint import (
    LAST,
    Checkpoint,
    ModelDescription,
    Preprocessing,
    check_classes,
    load_weights,
    pack,
    read_checkpoint,
)
from vidpipe.train.data import ClipLoader
from vidpipe.train.device import gathered
from vidpipe.train.meter import Window
from vidpipe.train.optim import load_optimizer_state, optimizer_state
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.sharding import is_dealt_out
from vidpipe.train.step import Learner

_MAY_CHANGE = (
    "summary",
    "schedule.epochs",
    "schedule.steps",
    "eval",
    "checkpoint",
    "log",
    "compile",
    "strategy",
    "on_nan",
    "max_skips",
    "optim.accumulate",
    "data.backend",
    "data.cache_dir",
    "data.cache_gb",
    "data.check",
    "data.decode",
    "data.eval_batch_size",
    "data.readers",
    "data.threads",
    "data.on_bad",
    "data.prefetch_batches",
    "data.max_bad",
    "model.init",
    "model.checkpointing",
    "distill.teacher",
)
_APPEARS_SECONDS = 5.0


@dataclass
class RunState:
    """Everything of a run that changes as it goes.

    Attributes:
        step: optimiser steps taken.
        epochs: that have ended, with what is due then.
        window: sums since the last log row.
        metrics: of the last evaluation, and `best_top1` and `best_loss` of the best one (by accuracy, then by loss).
        evaluation_due: an evaluation was to be made at this step and has not been finished.
        evaluated_step: that of the last evaluation that was, -1 before the first.
        changed: since it was last saved.
        frozen: file in the run folder with the part of the model that checkpoints leave out; None writes them whole.
    """

    learner: Learner
    loader: ClipLoader
    description: ModelDescription
    preprocessing: Preprocessing
    step: int = 0
    epochs: int = 0
    window: Window = field(default_factory=Window)
    metrics: dict[str, float] = field(default_factory=dict)
    evaluation_due: bool = False
    evaluated_step: int = -1
    changed: bool = True
    frozen: str | None = None

    def take_metrics(self, values: dict[str, float]) -> bool:
        """Take note of an evaluation; whether it is the best so far, by accuracy (where there is one), then by loss."""
        now = {"best_loss": values["val_loss"]}
        if "val_top1" in values:
            now["best_top1"] = values["val_top1"]
        before = {key: value for key, value in self.metrics.items() if key.startswith("best_")}
        is_best = not before or _rank(now) > _rank(before)
        self.metrics = {**values, **(now if is_best else before)}
        return is_best

    def packed(self) -> dict[str, Any]:
        """What is written as a checkpoint; the tensors are those in use, not copies. Every process must call it."""
        learner = self.learner
        left_out = frozen_part(learner.module).keys() if self.frozen is not None else ()

        def stored(module: nn.Module) -> dict[str, Tensor]:
            return {name: tensor for name, tensor in module.state_dict().items() if name not in left_out}

        checkpoint = Checkpoint(
            path=Path(LAST),
            step=self.step,
            epoch=self.epochs,
            metrics=self.metrics,
            recipe=learner.recipe.model_dump(mode="json"),
            model=self.description,
            preprocessing=self.preprocessing,
            frozen=self.frozen,
            weights=stored(learner.module),
            ema=stored(learner.ema.module) if learner.ema is not None else None,
            training={
                "vidpipe": vidpipe.__version__,
                "optimizer": optimizer_state(learner.optimizer, learner.module),
                "schedule": learner.schedule.state_dict(),
                "precision": learner.fabric.strategy.precision.state_dict(),
                "loader": self.loader.state_dict(),
                "window": self.window.reduced(learner.fabric).state_dict(),
                "evaluation_due": self.evaluation_due,
                "evaluated_step": self.evaluated_step,
                "teacher": self._teacher,
            },
        )
        return pack(checkpoint)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. What is drawn at a step depends on seed and step alone, so no generators are stored.

        Raises:
            CheckpointError: it can't be read, or doesn't fit the model, the data or the optimiser.
        """
        learner = self.learner
        checkpoint = read_checkpoint(path, layout=self._layout())
        training = checkpoint.training
        check_classes(checkpoint, self.preprocessing.classes, shards="the shards")
        if training.get("teacher") != self._teacher:
            raise CheckpointError(
                f"{checkpoint.path}: the run was begun with another teacher; set distill.teacher to the one it had"
            )
        load_weights(learner.module, checkpoint.weights, path=checkpoint.path)
        if learner.ema is not None and checkpoint.ema is not None:
            load_weights(learner.ema.module, checkpoint.ema, path=checkpoint.path)
        try:
            load_optimizer_state(learner.optimizer, learner.module, training["optimizer"])
            learner.schedule.load_state_dict(training["schedule"])
            learner.fabric.strategy.precision.load_state_dict(training["precision"])
            self.loader.load_state_dict(training["loader"])
            self.window = Window.from_state(training["window"], rank=learner.fabric.global_rank)
            self.evaluation_due = bool(training["evaluation_due"])
            self.evaluated_step = int(training["evaluated_step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: its training state doesn't fit this run: {one_line(error)}"
            ) from error
        self.step, self.epochs, self.changed = checkpoint.step, checkpoint.epoch, False
        self.metrics = dict(checkpoint.metrics)

    def _layout(self) -> Layout | None:
        """How a checkpoint's tensors are dealt out among processes; None if they are not."""
        if not is_dealt_out(self.learner.module):
            return None
        parameters = dict(self.learner.module.named_parameters())

        def layout(place: tuple[str, ...]) -> Tensor | None:
            match place:
                case ("weights" | "ema", name) | ("training", "optimizer", "state", name, _):
                    return parameters.get(name)
            return None

        return layout

    @property
    def _teacher(self) -> str | None:
        return self.learner.teacher.fingerprint if self.learner.teacher is not None else None


def _rank(best: dict[str, float]) -> tuple[float, float]:
    return best.get("best_top1", 0.0), -best["best_loss"]


def read_resume_point(out: Path, recipe: TrainRecipe, *, resume: bool, world_size: int) -> Checkpoint | None:
    """The checkpoint to go on from, without its tensors; None begins a run. Every process must call it.

    Raises:
        UsageError: the folder holds a run and `resume` is False, or the recipe differs where that would change the run, or
            the processes don't find the same.
        CheckpointError: the checkpoint can't be read.
    """
    is_there = os.path.lexists(out / LAST)
    checkpoint = read_checkpoint(out, which="last", tensors=False) if is_there and resume else None
    if world_size > 1:
        _agree_on(
            "no run" if not is_there else "a run" if checkpoint is None else _known_by(checkpoint), out, world_size
        )
    if not is_there:
        return None
    if checkpoint is None:
        raise UsageError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
    begun = validate(TrainRecipe, checkpoint.recipe, where=f"{checkpoint.path}: the recipe in it")
    before, now = _flat(begun.model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    changes = [
        f"{key} {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not any(key == may or key.startswith(f"{may}.") for may in _MAY_CHANGE)
    ]
    if changes:
        raise UsageError(
            f"{out}: the run was begun with other settings ({'; '.join(changes)}); set them back or choose another --out"
        )
    return checkpoint


def check_shared(out: Path, fabric: Fabric) -> None:
    """Refuse a run folder that not all processes see: what each wrote of a checkpoint would be of no use. Every process must call it.

    Raises:
        UsageError: one doesn't see what the first one writes there, on all of them.
    """
    token = out / f".seen-by-all-{uuid.uuid4().hex}"
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        token.touch()
    names = gathered(token.name, fabric.world_size)
    sees = gathered(_appears(names[0], out), fabric.world_size)
    if fabric.is_global_zero:
        token.unlink()
    if not all(sees):
        raise UsageError(
            f"{out}: process {sees.index(False)} doesn't see what process 0 writes there, and with strategy=fsdp each writes its "
            "part of a checkpoint; take an --out that all machines see, or strategy=ddp"
        )


def _appears(name: str, folder: Path) -> bool:
    """Whether a file is in a folder, or comes within some seconds. NFS remembers what isn't there, but lists folders anew."""
    deadline = time.monotonic() + _APPEARS_SECONDS
    while True:
        with suppress(OSError):
            if folder / name in folder.iterdir():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _agree_on(found: str, out: Path, world_size: int) -> None:
    """Refuse to go on where processes have different run folders: their weights would differ from then on."""
    others = gathered(found, world_size)
    rank = next((rank for rank, other in enumerate(others) if other != others[0]), 0)
    if rank:
        raise UsageError(
            f"{out}: process 0 finds {others[0]} there, process {rank} finds {others[rank]}; take an --out that all "
            "machines see"
        )


def _known_by(checkpoint: Checkpoint) -> str:
    """What tells a checkpoint from another: all but its tensors, and where it is a file the first values of each."""
    tensors, plain = split_tensors([checkpoint.metrics, checkpoint.recipe, checkpoint.weights, checkpoint.training])
    heads = fingerprint({name: tensor.flatten()[:64] for name, tensor in tensors.items()})
    return f"step {checkpoint.step} ({hashlib.sha256(f'{plain} {heads}'.encode()).hexdigest()[:8]})"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
