"""MosaicML Streaming: the clips in its own shards (MDS), read by its streaming data set."""

from __future__ import annotations

from typing import Any, ClassVar

import streaming
from torch.utils.data import DataLoader

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import Arm, Batches, Job
from vidpipe.bench.loader.arms.torch_dataset import CHUNK_BYTES, ClipTransform, Item, batches_of, collate, repeats


class MosaicmlStreamingArm(Arm):
    """streaming.StreamingDataset on a local folder, in a DataLoader."""

    title: ClassVar[str] = "MosaicML Streaming + DataLoader"
    about: ClassVar[str] = (
        "streaming.StreamingDataset(shuffle=True) on local MDS shards of 64 MiB with the clips as arrays, in `workers` "
        "DataLoader workers; train: torchvision's v2 transforms on uint8."
    )

    def prepare(self) -> None:
        """Write the MDS shards."""
        stored = StoredClips(self.setup.folder, frames=self.setup.frames)
        columns = {"key": "str", "video": "ndarray"}
        with streaming.MDSWriter(out=str(self.setup.scratch), columns=columns, size_limit=CHUNK_BYTES) as writer:
            for clip in stored.clips:
                writer.write({"key": clip.key, "video": stored.frames(clip)})

    def batches(self, job: Job) -> Batches:
        """In its shuffled order."""
        num_clips = len(StoredClips(self.setup.folder))
        dataset = _Dataset(
            local=str(self.setup.scratch),
            shuffle=True,
            shuffle_seed=self.setup.seed,
            batch_size=self.setup.batch_size,
            epoch_size=num_clips * repeats(num_clips),
        )
        dataset.clip_transform = ClipTransform(self.setup, job)
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=self.setup.batch_size, num_workers=self.setup.workers, collate_fn=collate
        )
        while True:
            yield from batches_of(loader, job)


class _Dataset(streaming.StreamingDataset):  # type: ignore[misc]
    clip_transform: ClipTransform

    def __getitem__(self, at: Any) -> Item:
        sample = super().__getitem__(at)
        return sample["key"], self.clip_transform(sample["video"])
