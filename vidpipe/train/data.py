"""The loaders of a run, and what has to be remembered about their data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

from vidpipe.errors import UsageError
from vidpipe.features.loader import FeatureLoader, FeatureOptions
from vidpipe.loader import Batch, Loader, LoaderOptions
from vidpipe.loader.reading.splits import (
    DEFAULT_SPLIT,
    Folder,
    Shards,
    local_folder,
    named_folders,
    read_manifest,
    split_names,
)
from vidpipe.shards.manifest import Manifest
from vidpipe.train.checkpoint import Preprocessing
from vidpipe.train.recipe_data import DataSection


class ClipLoader(Protocol):
    """What a run needs of a loader, be it of clips or of features."""

    @property
    def manifest(self) -> Manifest:
        """Of the split."""

    @property
    def batch_size(self) -> int:
        """Clips of a batch."""

    @property
    def num_samples(self) -> int:
        """Clips of an epoch, over all ranks."""

    @property
    def backend(self) -> str:
        """The engine's name."""

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""

    def __iter__(self) -> Iterator[Batch]:
        """What is left of the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""

    def close(self) -> None:
        """Free what it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


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


def loader_options(section: DataSection) -> LoaderOptions:
    """The rarer settings of the loader to train from."""
    options = replace(
        _fetching(section),
        normalization=section.normalize,
        epoch_unit=section.epoch_unit,
        where=section.where,
        balance=section.balance,
        shuffle=section.shuffle,
        color_jitter=section.color_jitter,
        affine=section.affine,
        clips_per_sample=section.clips_per_sample,
    )
    if section.augment is None:  # as a recipe's crops stay where that is switched off
        return options
    return replace(
        options,
        crop_scale=section.crop_scale,
        crop_ratio=section.crop_ratio,
        horizontal_flip=section.horizontal_flip,
    )


def _fetching(section: DataSection) -> LoaderOptions:
    """How clips are fetched, read and decoded, and what is done about damage, whatever clips these are."""
    return LoaderOptions(
        shuffle_window=section.shuffle_window,
        check=section.check,
        on_bad=section.on_bad,
        max_bad=section.max_bad,
        decode=section.decode,
        threads=section.threads,
        readers=section.readers,
        prefetch_batches=section.prefetch_batches,
        cache_dir=section.cache_dir,
        cache_gb=section.cache_gb,
    )


def open_train_loader(
    shards: Shards, section: DataSection, *, accumulate: int, device: str, seed: int, rank: int = 0, world_size: int = 1
) -> ClipLoader:
    """The loader to train from; it gives the parts of which `accumulate` make this process's share of a batch.

    Raises:
        UsageError: the batch can't be divided evenly, or the split has too few clips for one.
    """
    batch_size = per_process_batch(section.batch_size, world_size=world_size, accumulate=accumulate)

    def opened(*, drop_last: bool) -> ClipLoader:
        if _holds_features(shards, None):
            options = FeatureOptions(
                frames=section.frames,
                stride=section.stride,
                random=section.augment == "train",
                epoch_unit=section.epoch_unit,
                seed=seed,
                drop_last=drop_last,
                rank=rank,
                world_size=world_size,
            )
            return FeatureLoader(
                features_folder(shards), split=DEFAULT_SPLIT, batch_size=batch_size, device=device, options=options
            )
        return Loader(
            shards,
            batch_size=batch_size,
            frames=section.frames,
            stride=section.stride,
            size=section.size,
            augment=section.augment,
            device=device,
            backend=section.backend,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            options=loader_options(section),
        )

    try:
        loader = opened(drop_last=section.drop_last)
        fits = steps_per_epoch(loader, accumulate=accumulate, drop_last=section.drop_last) > 0
    except UsageError:
        if not section.drop_last:
            raise
        loader, fits = opened(drop_last=False), False  # the batch was too large, unless this raises what else is wrong
    if not fits:
        num_samples = loader.num_samples
        loader.close()
        raise UsageError(
            f"{shards}: {num_samples} training clips don't fill one batch of {section.batch_size}; "
            "take a smaller --batch-size, or data.drop_last=false"
        )
    return loader


def _holds_features(shards: Shards, split: str | None) -> bool:
    return read_manifest(shards, split).features is not None


def features_folder(shards: Shards) -> Path:
    """The folder of shards that hold features.

    Raises:
        UsageError: there are several, or it isn't on this machine.
    """
    folders, _ = named_folders(shards)
    folder = local_folder(folders[0])
    if folder is None or len(folders) > 1:
        raise UsageError(f"shards: {shards} holds features, which are read from one folder on this machine: name that")
    return folder


def steps_per_epoch(loader: ClipLoader, *, accumulate: int, drop_last: bool) -> int:
    """Optimiser steps of an epoch; with `drop_last` an incomplete last one is left out."""
    return len(loader) // accumulate if drop_last else -(-len(loader) // accumulate)


def open_eval_loader(
    shards: Shards,
    *,
    split: str | None,
    preprocessing: Preprocessing,
    batch_size: int,
    device: str,
    section: DataSection,
    rank: int = 0,
    world_size: int = 1,
    views: tuple[int, int] | None = None,
) -> ClipLoader:
    """The loader to evaluate from.

    Args:
        shards: of several data sets, each clip counts once.
        split: as `Loader` takes it.
        section: how clips are fetched, read and decoded, and what is done about damage; which ones is said by
            `preprocessing` and `views`.
        views: windows of each video and crops of each window; by default the centre of every stored clip.

    Raises:
        UsageError: views of features, which have no more than were stored, or leaving damaged ones out.
    """
    if _holds_features(shards, split):
        if views is not None:
            raise UsageError(f"views: {shards} holds features, of which all stored ones are averaged: leave it out")
        if section.on_bad == "skip":
            raise UsageError(f"on_bad skip: {shards} holds features, of which damaged ones aren't left out: use raise")
        options = FeatureOptions(
            frames=preprocessing.frames,
            stride=preprocessing.stride,
            epoch_unit="clip",
            rank=rank,
            world_size=world_size,
        )
        return FeatureLoader(
            features_folder(shards),
            split=split or DEFAULT_SPLIT,
            batch_size=batch_size,
            device=device,
            options=options,
        )
    return Loader(
        named_folders(shards)[0],
        split=split,
        batch_size=batch_size,
        frames=preprocessing.frames,
        stride=preprocessing.stride,
        size=preprocessing.size,
        augment=None,
        device=device,
        backend=section.backend,
        seed=0,
        drop_last=False,
        rank=rank,
        world_size=world_size,
        options=replace(
            _fetching(section),
            normalization=preprocessing.normalization,
            epoch_unit="video" if views else "clip",
            views=views,
        ),
    )


def other_splits(shards: Shards) -> list[str]:
    """A sentence for each folder to train from that is a split itself, and another one than `train`."""
    splits = {folder: read_manifest(folder, None).split for folder in named_folders(shards)[0]}
    return [
        f"{folder}: is the split {split!r} itself: trained on"
        for folder, split in splits.items()
        if split != DEFAULT_SPLIT
    ]


def evaluated_shards(shards: Shards, split: str) -> tuple[Folder, ...]:
    """The data sets that have the split to evaluate on while training."""
    return tuple(folder for folder in named_folders(shards)[0] if split in split_names(folder))
