"""Evaluation of a checkpoint on shards: the softmax of a video's clips is averaged, and the video counts once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.errors import CheckpointError, ShardError, UsageError
from vidpipe.loader import Loader
from vidpipe.loader.batch import Backend, Window
from vidpipe.loader.window import frame_window
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.shards.manifest import Manifest, find_split, load_manifest
from vidpipe.train.checkpoint import Preprocessing, build_classifier, check_classes, read_checkpoint
from vidpipe.train.data import open_eval_loader
from vidpipe.train.device import Device, make_fabric
from vidpipe.train.objective import draw_masks
from vidpipe.train.recipe import Precision
from vidpipe.train.scores import Evaluation, ReconstructionScore, summarize


def evaluate(
    checkpoint: Path,
    *,
    shards: Path,
    split: str = "val",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int = 16,
    backend: Backend = "auto",
    views: int | None = None,
    shuffle_frames: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a checkpoint on a split of shards.

    Args:
        checkpoint: a file or a run folder (its best, else its last).
        shards: a data set's folder or that of one split.
        batch_size: clips of one batch on one process.
        views: temporal views of a video whose softmax is averaged, a multiple of the clips that are stored of it: as many
            windows, evenly spread, are taken of each. By default the central one of each.
        shuffle_frames: seed of a random order of each clip's frames; what is left of the accuracy then needs no order.
        on_batch: called after each batch with the number of batches done and of all.

    Raises:
        CheckpointError: the checkpoint can't be used, or was made from other classes or another normalisation.
        ShardError: the shards can't be used.
        UsageError: the stored clips don't have that many views.
    """
    loaded = read_checkpoint(checkpoint)
    manifest = load_manifest(find_split(shards, split))
    check_classes(loaded, manifest.classes, shards=str(shards))
    if manifest.normalization != loaded.preprocessing.normalization:
        raise CheckpointError(
            f"{loaded.path} learned from clips normalised by {loaded.preprocessing.normalization}, but {shards} "
            f"says {manifest.normalization}; prepare the shards with the checkpoint's normalisation"
        )
    windows = view_windows(manifest, loaded.preprocessing, views=views)
    fabric = make_fabric(device=device, precision=precision)
    model = fabric.to_device(build_classifier(loaded))
    tally = Tally()
    for number, window in enumerate(windows):
        loader = open_eval_loader(
            shards,
            split=split,
            preprocessing=loaded.preprocessing,
            batch_size=batch_size,
            device=str(fabric.device),
            backend=backend,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            window=window,
        )
        with loader:
            for done in tally.add(model, loader, forward_context=fabric.autocast, shuffle_frames=shuffle_frames):
                if on_batch is not None:
                    on_batch(number * len(loader) + done, len(windows) * len(loader))
    return tally.evaluation(manifest, world_size=fabric.world_size, shuffled=shuffle_frames is not None)


def view_windows(manifest: Manifest, preprocessing: Preprocessing, *, views: int | None) -> list[Window]:
    """Where in each stored clip the views are taken.

    Raises:
        UsageError: `views` is not a multiple of the clips that are stored of a video, or more than they have frames for.
    """
    if views is None:
        return ["center"]
    stored = manifest.clip.clips
    if views < 1 or views % stored:
        raise UsageError(
            f"views: got {views}, but {stored} clips of each video are stored: expected a multiple of that"
        )
    count = views // stored
    if count == 1:
        return ["center"]
    first = frame_window(manifest.clip, frames=preprocessing.frames, stride=preprocessing.stride, window=0)
    room = first.stored - first.span
    if first.segments or room + 1 < count:
        raise UsageError(
            f"views: got {views}, but {first.frames} frames have {1 if first.segments else room + 1} places in each of "
            f"the {stored} stored clips; prepare with --clips {views}"
        )
    return [round(number * room / (count - 1)) for number in range(count)]


def score(
    module: nn.Module,
    loader: Loader,
    *,
    forward_context: Callable[[], AbstractContextManager[Any]],
    world_size: int = 1,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation | ReconstructionScore:
    """Evaluate a model, of pretraining too, on one epoch of a loader; on several processes each gets the same result.

    Args:
        forward_context: makes the context (autocast) of a forward pass.
        on_batch: as in `evaluate`.

    Raises:
        ShardError: there was no clip to evaluate.
    """
    if isinstance(module, VideoMAEPretrain):
        return _reconstruction(module, loader, forward_context, world_size, on_batch)
    tally = Tally()
    for done in tally.add(module, loader, forward_context=forward_context):
        if on_batch is not None:
            on_batch(done, len(loader))
    return tally.evaluation(loader.manifest, world_size=world_size)


def _reconstruction(
    module: VideoMAEPretrain,
    loader: Loader,
    forward_context: Callable[[], AbstractContextManager[Any]],
    world_size: int,
    on_batch: Callable[[int, int], None] | None,
) -> ReconstructionScore:
    """The mean loss over one epoch of a loader, with the same masks every time."""
    module.eval()
    loader.set_epoch(0)
    loss_sum, clips = 0.0, 0
    for number, batch in enumerate(loader, start=1):
        mask = draw_masks(module, batch.key, seed=0, epoch=0)
        with torch.inference_mode(), forward_context():
            loss = module.loss(module(batch.video, mask).float(), batch.video, mask)
        loss_sum += float(loss) * len(batch)
        clips += len(batch)
        if on_batch is not None:
            on_batch(number, len(loader))
    parts = _gathered((loss_sum, clips), world_size)
    total = sum(part[1] for part in parts)
    return ReconstructionScore(loader.manifest.split, total, sum(part[0] for part in parts) / max(1, total))


class Tally:
    """What a model says about clips, kept until all have been seen."""

    def __init__(self) -> None:
        self._videos: list[str] = []
        self._labels: list[int] = []
        self._probabilities: list[Tensor] = []
        self._loss_sum = 0.0

    def add(
        self,
        module: nn.Module,
        loader: Loader,
        *,
        forward_context: Callable[[], AbstractContextManager[Any]],
        shuffle_frames: int | None = None,
    ) -> Iterator[int]:
        """Go through one epoch of a loader; yields the number of batches done after each."""
        module.eval()
        loader.set_epoch(0)
        for number, batch in enumerate(loader, start=1):
            video = batch.video if shuffle_frames is None else _shuffled(batch.video, batch.key, seed=shuffle_frames)
            with torch.inference_mode(), forward_context():
                logits = module(video).float()
            real = ~batch.is_padding & (batch.label >= 0)
            self._loss_sum += float(F.cross_entropy(logits[real], batch.label[real], reduction="sum"))
            self._videos += [path for path, keep in zip(batch.video_path, real.tolist(), strict=True) if keep]
            self._labels += batch.label[real].tolist()
            self._probabilities.append(logits[real].softmax(dim=1).cpu())
            yield number

    def evaluation(self, manifest: Manifest, *, world_size: int, shuffled: bool = False) -> Evaluation:
        """The evaluation of what was seen on all processes.

        Raises:
            ShardError: nothing was.
        """
        parts = _gathered((self._videos, self._labels, self._probabilities, self._loss_sum), world_size)
        names = [name for part in parts for name in part[0]]
        if not names:
            raise ShardError(f"split {manifest.split!r} has no labelled clips to evaluate")
        return summarize(
            split=manifest.split,
            class_names=manifest.classes,
            video_names=names,
            labels=[label for part in parts for label in part[1]],
            probabilities=torch.cat([block for part in parts for block in part[2]]),
            mean_loss=sum(part[3] for part in parts) / len(names),
            shuffled=shuffled,
        )


def _gathered(own: Any, world_size: int) -> list[Any]:
    if world_size == 1:
        return [own]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


def _shuffled(video: Tensor, keys: Sequence[str], *, seed: int) -> Tensor:
    """Each clip [C, T, H, W] of the batch with its frames in a random order that depends on (seed, key)."""
    clips = []
    for clip, key in zip(video, keys, strict=True):
        digest = hashlib.blake2b(f"shuffle/{seed}/{key}".encode(), digest_size=16).digest()
        order = np.random.Generator(np.random.Philox(int.from_bytes(digest, "little"))).permutation(clip.shape[1])
        clips.append(clip[:, torch.from_numpy(order).to(clip.device)])
    return torch.stack(clips)
