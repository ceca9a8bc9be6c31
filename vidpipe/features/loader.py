"""Batches of features, in the order and with the resuming of `vidpipe.loader.Loader`.

Features are some kilobytes a frame, so one thread reads them as fast as any model takes them, and there is nothing to decode,
to crop or to augment but the choice of the frames and, where several were stored, of the crop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.errors import BadSampleError, ShardError, UsageError
from vidpipe.loader import Batch
from vidpipe.loader.augmentation.augment import sample_rng
from vidpipe.loader.background import Background
from vidpipe.loader.options import EpochUnit
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.open_shards import OpenShards, open_shards_allowed, read_error, shards_in
from vidpipe.loader.sampling.place import Place, Spot
from vidpipe.loader.sampling.sampler import Sampler, Units
from vidpipe.loader.sampling.window import stored_window
from vidpipe.loader.state import VERSION, check_state, fingerprint
from vidpipe.loader.transfer import find_device
from vidpipe.shards.checksum import crc32
from vidpipe.shards.features import FeatureFormat
from vidpipe.shards.manifest import content_fingerprint, find_split, load_manifest

AHEAD = 2  # batches that are read before they are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOptions:
    """How samples are taken.

    Attributes:
        frames, stride: of a sample, within those stored; as `Loader` takes them.
        random: take random windows, and with `epoch_unit` video a random one of a video's samples, instead of the middle.
        epoch_unit: one sample of each `video` an epoch, or every `clip` (times crops).
        seed: of order and windows.
        drop_last: leave out the last batch if it is short.
        rank, world_size: of this process.
    """

    frames: int | None = None
    stride: int | None = None
    random: bool = False
    epoch_unit: EpochUnit = "video"
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1


class FeatureLoader:
    """Batches of one split of feature shards, epoch after epoch; `video` of a batch is float32 [B, T, D].

    Args:
        shards: a data-set folder with splits, or a split's own.
        split: which one.
        batch_size: samples a batch, for each rank.
        device: where batches are wanted.
        options: how samples are taken.

    Raises:
        ShardError: the shards are absent, unfinished, damaged, or hold no features.
        UsageError: an option doesn't fit them.
    """

    backend = "features"

    def __init__(self, shards: Path, *, split: str, batch_size: int, device: str, options: FeatureOptions) -> None:
        self.folder = find_split(shards, split)
        self.manifest = load_manifest(self.folder)
        if self.manifest.features is None:
            raise ShardError(f"{self.folder}: holds frames, not features; make some with `vidpipe features`")
        if batch_size < 1:
            raise UsageError(f"batch_size: got {batch_size}, expected at least 1")
        self.batch_size, self.options = batch_size, options
        self._format = FeatureFormat(self.manifest.features)
        self._window = stored_window(
            self.manifest, frames=options.frames, stride=options.stride, window="random" if options.random else "center"
        )
        self._index = load_index(self.folder, self.manifest)
        if len(self._index) == 0:
            raise ShardError(f"{self.folder}: holds no samples")
        units = Units(self._index, matching=None, by_video=options.epoch_unit == "video")
        self._sampler = Sampler(units, self._index, groups=None, shard_window=None, seed=options.seed)
        self._device = find_device(device)
        self._shards = OpenShards(shards_in(self.folder, self.manifest), most=open_shards_allowed())
        self._place = Place(
            self.num_samples,
            batch_size=batch_size,
            rank=options.rank,
            world_size=options.world_size,
            drop_last=options.drop_last,
            whole_passes=not options.random,
        )
        self._background = Background(
            ahead=AHEAD, following=self._place.following, across_epochs=options.random, device=self._device
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels index them."""
        return self.manifest.classes

    @property
    def num_samples(self) -> int:
        """Samples that an epoch gives, over all ranks and without padding."""
        return self._sampler.size

    @property
    def epoch(self) -> int:
        """The epoch under way: within a loop that of its batch, else the one that the next batch belongs to."""
        return self._place.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; does nothing while batches of that epoch are left that iterating would give."""
        self._place.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self._place)

    def __iter__(self) -> Iterator[Batch]:
        def batches(first: Spot, number: int) -> Iterator[Batch]:
            return self._background.run(
                first,
                number,
                kind="features",
                start=lambda spot: spot,
                finish=self._batch,
                hand_over=lambda batch: batch,
            )

        return self._place.run(batches)

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is, as small JSON: the same for all ranks after the same number of batches.

        After an epoch's last batch it is the start of the next one.
        """
        content = {
            "classes": fingerprint(self.classes),
            "features": content_fingerprint([self.manifest]),
            "seed": self.options.seed,
            "epoch_unit": self.options.epoch_unit,
            "random": self.options.random,
            "frames": self._window.frames,
            "frame_step": self._window.spacing,
        }
        spot = self._place.next
        return {"version": VERSION, "epoch": spot.epoch, "consumed": spot.consumed, "content": content}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly after the last batch that was given when `state` was taken, at any world size.

        Raises:
            UsageError: the state is of other shards, another seed or other frames, or has no place in their order; nothing is
                changed then.
        """
        check_state(state, self.state_dict(), num_samples=self.num_samples)
        self._place.go(Spot(state["epoch"], state["consumed"]))

    def close(self) -> None:
        """End the threads and close all files. In a fork, which has none, it does nothing."""
        if self._background.is_here:
            self._background.close()
            self._shards.close()

    def __enter__(self) -> FeatureLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batch(self, spot: Spot) -> Batch:
        epoch = spot.epoch
        positions, padding = self._place.share(spot).positions(self.batch_size)
        samples = self._sampler.samples(self._sampler.draw(positions, epoch), epoch, random=self.options.random)
        features = torch.from_numpy(np.stack([self._read(int(sample), epoch) for sample in samples]))
        none = torch.zeros(len(samples), dtype=torch.int64, device=self._device)
        keys = [self._index.key[sample] for sample in samples.tolist()]
        return Batch(
            video=features.to(self._device),
            label=torch.from_numpy(self._index.label[samples].astype(np.int64)).to(self._device),
            key=keys,
            clip_key=keys,
            video_path=[self._index.video[sample] for sample in samples.tolist()],
            is_padding=torch.from_numpy(padding).to(self._device),
            view=none,
            dataset=none,
        )

    def _read(self, sample: int, epoch: int) -> NDArray[np.float32]:
        """The window of a sample: float32 [T, D]. Of what lies between its frames, all is read and checked."""
        index, shard = self._index, self._index.shards[self._index.shard[sample]]
        frames = self._window.pick(
            sample_rng(seed=self.options.seed, epoch=epoch, sample=sample), int(index.shape[sample, 0])
        )
        first, size = frames[0], self._format.frame_bytes
        begin = int(index.offset[sample]) + self._format.offset(first)
        file = self._shards[shard]
        try:
            content = memoryview(os.pread(file.descriptor, (frames[-1] - first + 1) * size, begin))
        except OSError as error:
            raise read_error(shard, index.key[sample], error) from error
        checksums = index.crc32[int(index.crc_start[sample]) + first :]
        for frame in range(frames[-1] - first + 1):
            if crc32(content[frame * size : (frame + 1) * size]) != checksums[frame]:
                raise BadSampleError(shard, index.key[sample], "its bytes differ from what was written (CRC-32)")
        rows: NDArray[np.float32] = self._format.rows(content)[np.array(frames) - first].astype(np.float32)
        return rows
