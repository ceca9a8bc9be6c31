"""What arms on torch's DataLoader share: stock torchvision augmentation, collation, the loop over batches, long epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from vidpipe.bench.loader.arms.base import ArmBatch, ArmSetup, Job
from vidpipe.shards.manifest import Normalization, load_manifest

# Of those with a storage format of their own: the size of chunk that both LitData and MosaicML Streaming take by default, and
# the least length of an epoch, since beginning a new one costs these arms much.
CHUNK_BYTES = 64 << 20
EPOCH_CLIPS = 50_000

Item = tuple[str, Tensor]
Collated = tuple[list[str], Tensor | list[Tensor]]


class ClipTransform:
    """uint8 [T, H, W, 3] to what the job wants: as it is, or float32 [3, T, size, size] by torchvision's transforms."""

    def __init__(self, setup: ArmSetup, job: Job) -> None:
        self._job = job
        self._augment = random_crops(
            setup.size,
            scale=setup.crop.scale,
            ratio=setup.crop.ratio,
            flip=setup.crop.flip,
            normalization=load_manifest(setup.folder).normalization,
        )

    def __call__(self, video: NDArray[np.uint8]) -> Tensor:
        """One crop and one flip for all frames of the clip."""
        frames = torch.from_numpy(video)
        if self._job == "read":
            return frames
        augmented: Tensor = self._augment(frames.permute(0, 3, 1, 2))
        return augmented.permute(1, 0, 2, 3)


def random_crops(
    size: int, *, scale: tuple[float, float], ratio: tuple[float, float], flip: bool, normalization: Normalization
) -> v2.Compose:
    """Torchvision's usual transforms: random resized crops of frames uint8 [T, 3, H, W], the same of all, as float32."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=scale, ratio=ratio, antialias=True),
            v2.RandomHorizontalFlip(0.5 if flip else 0.0),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(normalization.mean, normalization.std),
        ]
    )


def repeats(num_clips: int) -> int:
    """How often each clip occurs in an epoch of at least `EPOCH_CLIPS`."""
    return math.ceil(EPOCH_CLIPS / num_clips)


def collate(items: Sequence[Item]) -> Collated:
    """Clips of one size become one tensor, in shared memory when this is a worker; others a list."""
    from torch.utils.data import default_collate

    keys, videos = [key for key, _ in items], [video for _, video in items]
    same = len({video.shape for video in videos}) == 1
    return keys, default_collate(videos) if same else videos


def iterate(
    dataset: Dataset[Any], setup: ArmSetup, job: Job, *, workers: int, sampler: Sampler[int] | None = None
) -> Iterator[ArmBatch]:
    """The batches of a data set without end, by forked workers, with the DataLoader's usual prefetching."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=setup.batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=setup.device == "cuda",
        multiprocessing_context="fork",
    )
    yield from batches_of(loader, job)


def batches_of(loader: Iterable[Collated], job: Job) -> Iterator[ArmBatch]:
    """What a DataLoader with `collate` gives, as batches."""
    for keys, video in loader:
        yield ArmBatch(keys, cast("Tensor", video) if job == "train" else [clip.numpy() for clip in video])
