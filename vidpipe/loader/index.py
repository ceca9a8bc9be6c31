"""The samples of a split as arrays: what the loader asks of samples.parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import ShardError
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Manifest

_COLUMNS = (
    "key",
    "shard",
    "label",
    "video",
    "frames",
    "height",
    "width",
    "payload_offset",
    "payload_sizes",
    "payload_crc32",
)


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """One entry a sample, in the order of samples.parquet.

    Attributes:
        shards: file names, in the manifest's order; `shard` indexes them.
        shape: int32 [N, 3]: T, H, W of the stored clip.
        offset: of the payload's first byte in its shard.
        size: int64, the sizes of all samples' payload files one after the other; those of sample i are
            size[size_start[i]:size_start[i+1]].
        crc32: uint32, all samples' checksums one after the other; those of sample i are crc32[crc_start[i]:crc_start[i+1]].
        first_clip: int64 [V + 1]: the samples of video v are first_clip[v] to first_clip[v+1].
    """

    key: NDArray[np.object_]
    video: NDArray[np.object_]
    shards: tuple[str, ...]
    shard: NDArray[np.int32]
    label: NDArray[np.int64]
    shape: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    size_start: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    crc_start: NDArray[np.int64]
    first_clip: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def num_videos(self) -> int:
        """Number of source videos."""
        return len(self.first_clip) - 1

    def clip_bytes(self, sample: int) -> int:
        """Bytes of a sample's frames, decoded."""
        return int(self.shape[sample].astype(np.int64).prod()) * 3

    @property
    def max_frame_bytes(self) -> int:
        """Bytes of the largest frame."""
        return int((self.shape[:, 1].astype(np.int64) * self.shape[:, 2]).max()) * 3


def load_index(folder: Path, manifest: Manifest) -> SampleIndex:
    """Read the index of a split.

    Raises:
        ShardError: it is damaged or doesn't go with the manifest.
    """
    table = read_samples(folder, _COLUMNS)
    if table.num_rows != manifest.num_samples:
        raise ShardError(
            f"{folder}: samples.parquet has {table.num_rows} rows, but the manifest says {manifest.num_samples}"
        )
    columns = {name: table.column(name).combine_chunks() for name in _COLUMNS}
    names = tuple(entry.name for entry in manifest.shards)
    shard = _positions(columns["shard"].to_numpy(zero_copy_only=False), names, folder)
    video = columns["video"].to_numpy(zero_copy_only=False)
    crc = columns["payload_crc32"]
    starts = (
        np.flatnonzero(np.concatenate([[True], video[1:] != video[:-1], [True]]))
        if len(video)
        else np.zeros(1, np.int64)
    )
    return SampleIndex(
        key=columns["key"].to_numpy(zero_copy_only=False),
        video=video,
        shards=names,
        shard=shard,
        label=columns["label"].to_numpy().astype(np.int64),
        shape=np.stack([columns[name].to_numpy() for name in ("frames", "height", "width")], axis=1),
        offset=columns["payload_offset"].to_numpy(),
        size=columns["payload_sizes"].values.to_numpy(),
        size_start=columns["payload_sizes"].offsets.to_numpy().astype(np.int64),
        crc32=crc.values.to_numpy(),
        crc_start=crc.offsets.to_numpy().astype(np.int64),
        first_clip=starts.astype(np.int64),
    )


def _positions(shard: NDArray[np.object_], names: tuple[str, ...], folder: Path) -> NDArray[np.int32]:
    place = {name: position for position, name in enumerate(names)}
    try:
        return np.fromiter((place[name] for name in shard), np.int32, len(shard))
    except KeyError as error:
        raise ShardError(f"{folder}: samples.parquet names shard {error}, which the manifest doesn't") from error
