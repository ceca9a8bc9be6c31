"""Evaluation of a checkpoint on shards: the softmax of a video's views is averaged, and the video counts once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.errors import CheckpointError, ShardError, UsageError
from vidpipe.loader.augmentation.augment import keyed_rng
from vidpipe.loader.options import Backend, OnBad
from vidpipe.loader.reading.splits import Shards, named_folders, read_manifest
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.shards.manifest import Manifest
from vidpipe.train.bad_samples import left_out
from vidpipe.train.checkpoint import build_classifier, check_classes, read_checkpoint
from vidpipe.train.data import ClipLoader, open_eval_loader
from vidpipe.train.device import Device, gathered, make_fabric, precision_as_trained
from vidpipe.train.features import check_features
from vidpipe.train.memory import memory_advice
from vidpipe.train.mistakes import Mistakes
from vidpipe.train.objective import draw_masks
from vidpipe.train.pictures import draw_confusion
from vidpipe.train.progress import Progress
from vidpipe.train.recipe import Precision
from vidpipe.train.recipe_data import DataSection
from vidpipe.train.scores import Evaluation, ReconstructionScore, summarize

OnBatch = Callable[[int, int], None]
"""Called after each batch with the number of batches done and of all."""


def evaluate(
    checkpoint: Path,
    *,
    shards: Shards,
    split: str = "val",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int = 16,
    backend: Backend = "auto",
    on_bad: OnBad = "raise",
    views: tuple[int, int] | None = None,
    shuffle_frames: int | None = None,
    confusion: Path | None = None,
    misclassified: Path | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Evaluate a checkpoint on a split of shards.

    Args:
        checkpoint: a file, a folder or a run folder (its best, else its last).
        shards: a data set's folder or that of one split: a path or a URL. Of several, each clip counts once.
        precision: `auto` is what it was trained in, but fp32 on the CPU.
        batch_size: views of one batch on one process.
        on_bad: `skip` leaves damaged samples out, 5 % of them at most, and counts them.
        views: (T, S): T windows, evenly spread over a video, times S square crops along its longer side. By default the
            central window and square of each stored clip.
        shuffle_frames: seed of a random order of each clip's frames; what is left of the accuracy then needs no order.
        confusion: PNG file for a picture of which classes were taken for which.
        misclassified: PNG file for a picture of the videos of whose wrong class the model is most certain.
        quiet: show no progress.

    Raises:
        CheckpointError: the checkpoint can't be used, was made from other classes, or gives a loss that is not finite.
        ShardError: the shards can't be used.
        UsageError: the stored clips don't have that many views, data sets have weights, or a picture's folder isn't there.
    """
    if named_folders(shards)[1] is not None:
        raise UsageError(f"shards: got {shards}, but each clip is evaluated once: leave the weights out")
    loaded = read_checkpoint(checkpoint)
    manifest = read_manifest(shards, split)
    check_classes(loaded, manifest.classes, shards=str(shards))
    if manifest.features is not None and manifest.normalization != loaded.preprocessing.normalization:
        raise CheckpointError(
            f"{loaded.path} learned from clips normalised by {loaded.preprocessing.normalization}, but {shards} "
            f"holds features of clips normalised by {manifest.normalization}; make some of shards prepared with the former"
        )
    if manifest.features is not None and misclassified is not None:
        raise UsageError(f"--misclassified: {shards} holds features, of which nothing can be drawn; leave it out")
    fabric = make_fabric(device=device, precision=precision_as_trained(precision, loaded.recipe, device))
    # Now, as it would be found when all is evaluated, and lost with it.
    for picture in (confusion, misclassified) if fabric.is_global_zero else ():
        if picture is not None and not picture.parent.is_dir():
            raise UsageError(f"{picture}: there is no folder {picture.parent}; make it, or choose another")
    mistakes = Mistakes(loaded.preprocessing.normalization) if misclassified is not None else None
    progress = Progress(quiet=quiet or not fabric.is_global_zero)
    tally = Tally()
    with (
        memory_advice(f"evaluation of {batch_size} clips at a time", fabric.device, "try a smaller --batch-size"),
        open_eval_loader(
            shards,
            split=split,
            preprocessing=loaded.preprocessing,
            batch_size=batch_size,
            device=str(fabric.device),
            section=DataSection(backend=backend, on_bad=on_bad),
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            views=views,
        ) as loader,
        progress,
    ):
        model = fabric.to_device(build_classifier(loaded))
        if manifest.features is not None:
            check_features(model, manifest.features, checkpoint=loaded.path, name=loaded.model.name)
        tally.add(
            model,
            loader,
            forward_context=fabric.autocast,
            shuffle_frames=shuffle_frames,
            mistakes=mistakes,
            on_batch=lambda done, total: progress.note(f"evaluating, batch {done}/{total}"),
        )
        evaluation = tally.evaluation(
            manifest, world_size=fabric.world_size, shuffled=shuffle_frames is not None, views=views
        )
        bad_samples = set().union(*gathered(left_out(loader), fabric.world_size))
        evaluation = replace(evaluation, bad_samples=len(bad_samples))
        if not math.isfinite(evaluation.loss):
            raise CheckpointError(
                f"{loaded.path}: its loss on {split} is {evaluation.loss}: weights that are not finite, or values that "
                "overflow; take an earlier checkpoint, or evaluate with --device cpu"
            )
        if mistakes is not None:
            mistakes.gather(evaluation, fabric.world_size)
        if fabric.is_global_zero and confusion is not None:
            draw_confusion(evaluation, confusion)
        if fabric.is_global_zero and mistakes is not None and misclassified is not None:
            drawn = mistakes.draw(evaluation, misclassified)
            if drawn is None:
                progress.say(f"{misclassified}: not drawn, for no video was taken for another class")
    return evaluation


def score(
    module: nn.Module,
    loader: ClipLoader,
    *,
    forward_context: Callable[[], AbstractContextManager[Any]],
    world_size: int = 1,
    mistakes: Mistakes | None = None,
    on_batch: OnBatch | None = None,
) -> Evaluation | ReconstructionScore:
    """Evaluate a model, of pretraining too, on one epoch of a loader; on several processes each gets the same result.

    Args:
        forward_context: makes the context (autocast) of a forward pass.
        mistakes: keeps some of the clips that are taken for another class.

    Raises:
        ShardError: there was no clip to evaluate.
    """
    if isinstance(module, VideoMAEPretrain):
        return _reconstruction(module, loader, forward_context, world_size, on_batch)
    tally = Tally()
    tally.add(module, loader, forward_context=forward_context, mistakes=mistakes, on_batch=on_batch)
    return tally.evaluation(loader.manifest, world_size=world_size)


def _reconstruction(
    module: VideoMAEPretrain,
    loader: ClipLoader,
    forward_context: Callable[[], AbstractContextManager[Any]],
    world_size: int,
    on_batch: OnBatch | None,
) -> ReconstructionScore:
    """The mean loss over one epoch of a loader, with the same masks every time."""
    module.eval()
    loader.set_epoch(0)
    loss_sum, clips = 0.0, 0
    for number, batch in enumerate(loader, start=1):
        mask = draw_masks(module, batch.key, seed=0, epoch=0)
        with torch.no_grad(), forward_context():
            losses = module.clip_losses(module(batch.video, mask).float(), batch.video, mask)
        real = ~batch.is_padding
        loss_sum += float(losses[real].sum())
        clips += int(real.sum())
        if on_batch is not None:
            on_batch(number, len(loader))
    parts = gathered((loss_sum, clips), world_size)
    total = sum(part[1] for part in parts)
    return ReconstructionScore(loader.manifest.split, total, sum(part[0] for part in parts) / max(1, total))


class Tally:
    """What a model says about videos, summed until all their views have been seen."""

    def __init__(self) -> None:
        self._labels: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}
        self._clips: dict[str, int] = {}
        self._loss_sum = 0.0

    def add(
        self,
        module: nn.Module,
        loader: ClipLoader,
        *,
        forward_context: Callable[[], AbstractContextManager[Any]],
        shuffle_frames: int | None = None,
        mistakes: Mistakes | None = None,
        on_batch: OnBatch | None = None,
    ) -> None:
        """Go through one epoch of a loader."""
        module.eval()
        loader.set_epoch(0)
        for number, batch in enumerate(loader, start=1):
            video = batch.video if shuffle_frames is None else _shuffled(batch.video, batch.key, seed=shuffle_frames)
            # Not inference_mode, whose tensors a dealt-out model can't be trained with afterwards.
            with torch.no_grad(), forward_context():
                logits = module(video).float()
            real = ~batch.is_padding & (batch.label >= 0)
            self._loss_sum += float(F.cross_entropy(logits[real], batch.label[real], reduction="sum"))
            probabilities = logits.softmax(dim=1).cpu().double()
            paths = batch.video_key
            for row in real.nonzero().flatten().tolist():
                path = paths[row]
                self._labels[path] = int(batch.label[row])
                self._sums[path] = self._sums.get(path, 0) + probabilities[row]
                self._clips[path] = self._clips.get(path, 0) + 1
            if mistakes is not None:
                mistakes.add(batch, probabilities, real=real)
            if on_batch is not None:
                on_batch(number, len(loader))

    def evaluation(
        self,
        manifest: Manifest,
        *,
        world_size: int,
        shuffled: bool = False,
        views: tuple[int, int] | None = None,
    ) -> Evaluation:
        """The evaluation of what was seen on all processes.

        Raises:
            ShardError: nothing was.
        """
        labels: dict[str, int] = {}
        sums: dict[str, Tensor] = {}
        clips: dict[str, int] = {}
        loss_sum = 0.0
        for part in gathered((self._labels, self._sums, self._clips, self._loss_sum), world_size):
            labels |= part[0]
            for path in part[0]:
                sums[path] = sums.get(path, 0) + part[1][path]
                clips[path] = clips.get(path, 0) + part[2][path]
            loss_sum += part[3]
        if not labels:
            raise ShardError(f"split {manifest.split!r} has no labelled clips to evaluate")
        paths, total = sorted(labels), sum(clips.values())
        return summarize(
            split=manifest.split,
            class_names=manifest.classes,
            videos=paths,
            labels=[labels[path] for path in paths],
            probabilities=torch.stack([sums[path] / clips[path] for path in paths]),
            clips=total,
            mean_loss=loss_sum / total,
            shuffled=shuffled,
            views=views,
        )


def parse_views(text: str) -> tuple[int, int]:
    """`4x3` as (4, 3): windows and crops.

    Raises:
        UsageError: it is something else.
    """
    temporal, x, spatial = text.lower().partition("x")
    if not x or not temporal.isdecimal() or not spatial.isdecimal() or not int(temporal) or not int(spatial):
        raise UsageError(f"--views {text}: expected WINDOWSxCROPS, for instance 4x3")
    return int(temporal), int(spatial)


def _shuffled(video: Tensor, keys: Sequence[str], *, seed: int) -> Tensor:
    """Each clip [C, T, H, W] of the batch, or its features [T, D], with its frames in a random order that depends on (seed, key)."""
    clips = []
    for clip, key in zip(video, keys, strict=True):
        time = 0 if clip.ndim == 2 else 1
        order = keyed_rng(f"shuffle/{seed}/{key}").permutation(clip.shape[time])
        clips.append(clip.index_select(time, torch.from_numpy(order).to(clip.device)))
    return torch.stack(clips)
