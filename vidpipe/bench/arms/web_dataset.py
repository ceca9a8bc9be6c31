"""The webdataset package on the same shards, with torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import webdataset as wds

from vidpipe.bench.arm import Arm, ArmBatch, ArmSetup, Job
from vidpipe.bench.arms.torch_dataset import ClipTransform, Item, iterate
from vidpipe.shards.manifest import load_manifest


class WebDatasetArm(Arm):
    """Sequential tar reading, the stock decoder for .npy, worker processes."""

    title: ClassVar[str] = "WebDataset + DataLoader"
    about: ClassVar[str] = (
        "webdataset.WebDataset(...).decode() in `workers` DataLoader workers, not shuffled (which favours it); "
        "train: torchvision's v2 transforms on uint8."
    )

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Only clips that are stored as arrays."""
        codec = load_manifest(setup.folder).codec.name
        return "" if codec == "tensor" else f"reads the codec tensor, these shards have {codec}"

    def batches(self, job: Job) -> Iterator[ArmBatch]:
        """In the order of the shards, which are dealt out to the workers; no more of these than shards."""
        folder = self.setup.folder
        shards = [str(folder / entry.name) for entry in load_manifest(folder).shards]
        transform = ClipTransform(self.setup, job)

        def item(sample: dict[str, Any]) -> Item:
            return sample["__key__"], transform(sample["npy"])

        dataset = wds.WebDataset(shards, shardshuffle=False).decode(only=["npy", "cls"]).repeat().map(item)
        yield from iterate(dataset, self.setup, job, workers=min(self.setup.workers, len(shards)))
