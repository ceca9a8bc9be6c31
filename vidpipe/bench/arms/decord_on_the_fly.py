"""Decoding while training, the way of the trainers that prepared shards replace: decord in DataLoader workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from decord import VideoReader, cpu
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from vidpipe.bench.arm import Arm, ArmBatch, ArmSetup, Job
from vidpipe.bench.arms.torch_dataset import ClipTransform, Item, iterate
from vidpipe.bench.clips import StoredClips
from vidpipe.video.spec import ClipSpec


class DecordArm(Arm):
    """A `decord.VideoReader` for each sample."""

    title: ClassVar[str] = "decord on the fly + DataLoader"
    about: ClassVar[str] = (
        "A decord.VideoReader for each sample in `workers` DataLoader workers: get_batch of the stored clip's frames, resized "
        "by decord to the stored height; train: torchvision's v2 transforms on uint8."
    )
    decodes_anew: ClassVar[bool] = True

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """It needs the videos, and some that decord can decode."""
        if setup.source is None:
            return "needs the videos: name their folder with --source (SOURCE=... for make)"
        return "" if _recipes(setup) else f"no video in {setup.source} is both there and one that decord can decode"

    def batches(self, job: Job) -> Iterator[ArmBatch]:
        """In a random order."""
        recipes = _recipes(self.setup)
        dataset = _Decoding(recipes, ClipTransform(self.setup, job), StoredClips(self.setup.folder).manifest.clip)
        sampler = _Endless(len(recipes), self.setup.seed)
        yield from iterate(dataset, self.setup, job, workers=self.setup.workers, sampler=sampler)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How one stored clip is decoded again; width and height are the upright source's."""

    key: str
    path: str
    frame_indices: list[int]
    width: int
    height: int


def _recipes(setup: ArmSetup) -> list[_Recipe]:
    """Those of all stored clips that decord decoded and whose video is there."""
    assert setup.source is not None
    stored = StoredClips(setup.folder)
    recipes = []
    for clip in stored.clips:
        path = setup.source / clip.video
        description = stored.description(clip)
        source = description["source"]
        if source["decoder"] == "decord" and path.is_file():
            recipes.append(
                _Recipe(clip.key, str(path), description["frame_indices"], source["width"], source["height"])
            )
    return recipes


class _Decoding(Dataset[Item]):
    def __init__(self, recipes: list[_Recipe], transform: ClipTransform, spec: ClipSpec) -> None:
        self._recipes = recipes
        self._transform = transform
        self._spec = spec

    def __len__(self) -> int:
        return len(self._recipes)

    def __getitem__(self, index: int) -> Item:
        recipe = self._recipes[index]
        size = recipe.width, recipe.height
        width, height = self._spec.scaled_size(*size)
        reader: Any = VideoReader(recipe.path, ctx=cpu(0), width=width, height=height, num_threads=1)
        video: NDArray[np.uint8] = reader.get_batch(recipe.frame_indices).asnumpy()
        if self._spec.crop is not None:
            left, top = self._spec.crop_origin(*size)
            video = np.ascontiguousarray(video[:, top : top + self._spec.crop[1], left : left + self._spec.crop[0]])
        return recipe.key, self._transform(video)


class _Endless(Sampler[int]):
    """One random permutation after the other."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(self._seed)
        while True:
            yield from (int(index) for index in rng.permutation(self._size))
