"""Training data the usual way, for comparison: decord, torchvision's transforms and a DataLoader, on the source videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from vidpipe.bench.loader.arms.torch_dataset import random_crops
from vidpipe.bench.train_step import plain_batch
from vidpipe.loader import Loader
from vidpipe.loader.batch import Batch
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Manifest, find_split, load_manifest
from vidpipe.train.loop import train
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.recipe_data import DataSection

_Item = tuple[torch.Tensor, int, str]


def train_on_the_fly(name: str, overrides: Sequence[str], *, shards: Path, source: Path, out: Path) -> dict[str, Any]:
    """Train a recipe from the source videos of shards, evaluate on the shards' val split; gives the last evaluation."""
    recipe = load_train_recipe(name, overrides)

    def open_loader(*_: object, **__: object) -> Loader:
        loader = OnTheFlyLoader(shards, source, recipe.data, batch_size=recipe.data.batch_size, seed=recipe.seed)
        return cast(Loader, loader)

    result = train(recipe, shards=shards, out=out, device="cpu", open_loader=open_loader)
    assert result.evaluation is not None
    return result.evaluation.to_json()


class OnTheFlyLoader:
    """Stands in for `vidpipe.Loader` in training; shares no code with it.

    Each epoch takes every video once, in a random order: a window that starts at any of its frames, a random resized crop and
    perhaps a flip.

    Args:
        shards: whose videos are to be decoded; their frames are not used.
        source: the folder that they were made from.
        section: of the train recipe.
    """

    backend = "decord"

    def __init__(self, shards: Path, source: Path, section: DataSection, *, batch_size: int, seed: int) -> None:
        folder = find_split(shards, "train")
        self.manifest: Manifest = load_manifest(folder)
        self.batch_size, self.epoch = batch_size, 0
        self._seed = seed
        rows = read_samples(folder, ["video", "label"]).to_pylist()
        self._videos = _Videos(source, {row["video"]: row["label"] for row in rows}, section, self.manifest)

    @property
    def num_samples(self) -> int:
        """Videos."""
        return len(self._videos)

    def __len__(self) -> int:
        return math.ceil(len(self._videos) / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next batch is of."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        random = torch.Generator().manual_seed(self._seed * 10_007 + self.epoch)
        sampler = RandomSampler(self._videos, generator=random)
        batches: DataLoader[_Item] = DataLoader(self._videos, batch_size=self.batch_size, sampler=sampler)
        with torch.random.fork_rng():  # the transforms draw from torch's own generator, as training does
            torch.manual_seed(self._seed * 10_007 + self.epoch)
            for video, label, paths in batches:
                state = torch.get_rng_state()
                yield plain_batch(video, label, list(paths))
                torch.set_rng_state(state)
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """The epoch; there is no going on within it."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin that epoch."""
        self.epoch = int(state["epoch"])

    def close(self) -> None:
        """Nothing is left open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Videos(Dataset[_Item]):
    def __init__(self, source: Path, labels: dict[str, int], section: DataSection, manifest: Manifest) -> None:
        self._items = [(source / path, label) for path, label in labels.items()]
        self._frames = section.frames or manifest.clip.frames
        self._stride = section.stride or manifest.clip.stride
        flip = manifest.horizontal_flip if section.horizontal_flip is None else section.horizontal_flip
        self._transform = random_crops(
            section.size,
            scale=section.crop_scale,
            ratio=section.crop_ratio,
            flip=flip,
            normalization=manifest.normalization,
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> _Item:
        from decord import VideoReader

        path, label = self._items[index]
        reader = VideoReader(str(path), num_threads=1)
        room = max(0, len(reader) - (self._frames - 1) * self._stride - 1)
        first = int(torch.randint(room + 1, ()))
        frames = np.minimum(first + np.arange(self._frames) * self._stride, len(reader) - 1)
        video = torch.from_numpy(reader.get_batch(frames.tolist()).asnumpy()).permute(0, 3, 1, 2)
        return self._transform(video).permute(1, 0, 2, 3), label, path.as_posix()
