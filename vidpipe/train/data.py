"""The loaders of a run, and what has to be remembered about their data."""

from __future__ import annotations

from pathlib import Path

from vidpipe.errors import UsageError
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.loader.batch import Backend, Window
from vidpipe.shards.layout import MANIFEST
from vidpipe.shards.manifest import Manifest, find_split, load_manifest, split_folders
from vidpipe.train.checkpoint import Preprocessing
from vidpipe.train.recipe import DataSection


def preprocessing_of(manifest: Manifest, section: DataSection, *, views: Manifest | None = None) -> Preprocessing:
    """What the model's clips are, from the shards that it learns from.

    Args:
        views: manifest of the split that is evaluated; its number of clips for each video is used in prediction.
    """
    clip = manifest.clip.model_copy(update={"jitter": False, "clips": (views or manifest).clip.clips})
    return Preprocessing(
        dataset=manifest.dataset,
        classes=manifest.classes,
        clip=clip,
        codec=manifest.codec,
        normalization=manifest.normalization,
        frames=section.frames or clip.frames,
        stride=section.stride,
        size=section.size,
    )


def per_process_batch(batch_size: int, *, world_size: int, accumulate: int) -> int:
    """Clips that one process takes from its loader at a time.

    Raises:
        UsageError: the batch can't be divided evenly.
    """
    parts = world_size * accumulate
    if batch_size % parts:
        raise UsageError(
            f"data.batch_size {batch_size} can't be divided among {world_size} processes x {accumulate} accumulation "
            f"steps; the nearest that can: {max(parts, round(batch_size / parts) * parts)}"
        )
    return batch_size // parts


def open_train_loader(
    shards: Path, section: DataSection, *, accumulate: int, device: str, seed: int, rank: int = 0, world_size: int = 1
) -> Loader:
    """The loader to train from; it gives the parts of which `accumulate` make this process's share of a batch.

    Raises:
        UsageError: the batch can't be divided evenly, or the split has too few clips for one.
    """
    batch_size = per_process_batch(section.batch_size, world_size=world_size, accumulate=accumulate)
    loader = Loader(
        shards,
        split="train",
        batch_size=batch_size,
        frames=section.frames,
        stride=section.stride,
        size=section.size,
        augment=section.augment,
        device=device,
        backend=section.backend,
        seed=seed,
        drop_last=section.drop_last,
        rank=rank,
        world_size=world_size,
        options=LoaderOptions(
            epoch_unit=section.epoch_unit,
            on_bad=section.on_bad,
            crop_scale=section.crop_scale,
            crop_ratio=section.crop_ratio,
            horizontal_flip=section.horizontal_flip,
            threads=section.threads,
        ),
    )
    if steps_per_epoch(loader, accumulate=accumulate, drop_last=section.drop_last) == 0:
        num_samples = loader.num_samples
        loader.close()
        raise UsageError(
            f"{shards}: {num_samples} training clips don't fill one batch of {section.batch_size}; "
            "take a smaller --batch-size, or data.drop_last=false"
        )
    return loader


def steps_per_epoch(loader: Loader, *, accumulate: int, drop_last: bool) -> int:
    """Optimiser steps of an epoch; with `drop_last` an incomplete last one is left out."""
    return len(loader) // accumulate if drop_last else -(-len(loader) // accumulate)


def open_eval_loader(
    shards: Path,
    *,
    split: str,
    preprocessing: Preprocessing,
    batch_size: int,
    device: str,
    backend: Backend,
    rank: int = 0,
    world_size: int = 1,
    window: Window = "center",
) -> Loader:
    """The loader to evaluate from: every clip once, centre crops.

    Args:
        window: where in the stored clips the model's frames are taken.
    """
    return Loader(
        shards,
        split=split,
        batch_size=batch_size,
        frames=preprocessing.frames,
        stride=preprocessing.stride,
        size=preprocessing.size,
        augment=None,
        device=device,
        backend=backend,
        seed=0,
        drop_last=False,
        rank=rank,
        world_size=world_size,
        options=LoaderOptions(epoch_unit="clip", window=window),
    )


def evaluated_manifest(shards: Path, split: str) -> Manifest | None:
    """The manifest of the split to evaluate on while training, None where the data set has none."""
    if (shards / MANIFEST).is_file() or split not in split_folders(shards):
        return None
    return load_manifest(find_split(shards, split))
