"""LitData: the clips as its own chunks, read by its streaming data set."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar

import litdata
import numpy as np

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import Arm, Batches, Job
from vidpipe.bench.loader.arms.torch_dataset import CHUNK_BYTES, ClipTransform, Item, batches_of, collate, repeats

_CACHES = {"DATA_OPTIMIZER_CACHE_FOLDER": "chunks", "DATA_OPTIMIZER_DATA_CACHE_FOLDER": "data"}


class LitDataArm(Arm):
    """litdata.StreamingDataset and StreamingDataLoader on local chunks."""

    title: ClassVar[str] = "LitData"
    about: ClassVar[str] = (
        "litdata.StreamingDataset(shuffle=True) on local chunks of 64 MiB with the clips as arrays, made by litdata.optimize, "
        "in litdata.StreamingDataLoader with `workers` workers; train: torchvision's v2 transforms on uint8."
    )

    def prepare(self) -> None:
        """Write the chunks."""
        stored = StoredClips(self.setup.folder, frames=self.setup.frames)
        for variable, name in _CACHES.items():  # or it leaves them in the system's temporary folder
            os.environ[variable] = str(self.setup.scratch / name)
        litdata.optimize(
            partial(_item, stored),
            list(range(len(stored))),
            output_dir=self._folder,
            chunk_bytes=CHUNK_BYTES,
            num_workers=1,
            mode="overwrite",
            verbose=False,
            start_method="fork",
        )

    def batches(self, job: Job) -> Batches:
        """In its shuffled order."""
        dataset = _Dataset(
            self._folder,
            shuffle=True,
            seed=self.setup.seed,
            subsample=float(repeats(len(StoredClips(self.setup.folder)))),
        )
        dataset.clip_transform = ClipTransform(self.setup, job)
        loader = litdata.StreamingDataLoader(
            dataset, batch_size=self.setup.batch_size, num_workers=self.setup.workers, collate_fn=collate
        )
        while True:
            yield from batches_of(loader, job)

    @property
    def _folder(self) -> str:
        return str(self.setup.scratch / "clips")


class _Dataset(litdata.StreamingDataset):  # type: ignore[misc]
    clip_transform: ClipTransform

    def __getitem__(self, index: Any) -> Item:
        sample = super().__getitem__(index)
        return sample["key"], self.clip_transform(sample["video"])


def _item(stored: StoredClips, number: int) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = "1"
    clip = stored.clips[number]
    return {"key": clip.key, "video": np.array(stored.frames(clip))}
