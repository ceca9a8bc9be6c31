"""The samples of a split as arrays: what the loader asks of samples.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidpipe.errors import ShardError, one_line
from vidpipe.loader.reading.locations import SampleLocations
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.layout import UNLABELLED
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


class Strings:
    """A column of text as Arrow holds it: a few bytes for each value beside its own, where a Python string takes 50."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, place: int) -> str:
        return str(self.column[int(place)])

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The values at some places."""
        return [self[place] for place in places]  # Arrow's own take first joins all chunks of a column


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleIndex(SampleLocations):
    """One entry a sample, in the order of samples.parquet.

    Attributes:
        first_clip: int64 [V + 1]: the samples of video v are first_clip[v] to first_clip[v+1].
    """

    key: Strings
    video: Strings
    label: NDArray[np.int64]
    first_clip: NDArray[np.int64]

    @property
    def num_videos(self) -> int:
        """Number of source videos."""
        return len(self.first_clip) - 1

    def name(self, sample: int) -> str:
        """Its key."""
        return self.key[sample]


def load_index(folder: Path, manifest: Manifest) -> SampleIndex:
    """Read the index of a split.

    Raises:
        ShardError: it is damaged or doesn't go with the manifest.
    """
    return make_index(SamplesFile(folder, manifest.samples_file), manifest)


def make_index(samples: SamplesFile, manifest: Manifest) -> SampleIndex:
    """The index in a split's file; raises as `load_index`."""
    table = samples.read(_COLUMNS)
    if table.num_rows != manifest.num_samples:
        raise ShardError(f"{samples.path}: {table.num_rows} rows, but the manifest says {manifest.num_samples}")
    try:
        index = _index(table, tuple(entry.name for entry in manifest.shards))
    except (pa.ArrowException, ValueError) as error:
        raise ShardError(f"{samples.path}: damaged: {one_line(error)}; prepare the shards again") from error
    del table
    pa.default_memory_pool().release_unused()  # which keeps what columns were decoded in: nearly as much as the index
    return index


def _index(table: pa.Table, shards: tuple[str, ...]) -> SampleIndex:
    columns = {name: table.column(name).combine_chunks() for name in _COLUMNS if name not in ("key", "video", "shard")}
    shard = _positions(table.column("shard"), shards)
    if (np.diff(shard) < 0).any():
        raise ValueError("it is not in the order of the manifest's shards")
    sizes, crc = columns["payload_sizes"], columns["payload_crc32"]
    return SampleIndex(
        key=Strings(table.column("key")),
        video=Strings(table.column("video")),
        shards=shards,
        shard=shard,
        label=_numbers(columns["label"]).astype(np.int64),
        shape=np.stack([_numbers(columns[name]) for name in ("frames", "height", "width")], axis=1),
        offset=_numbers(columns["payload_offset"]),
        size=_numbers(sizes.values),
        size_start=_numbers(sizes.offsets).astype(np.int64),
        crc32=_numbers(crc.values),
        crc_start=_numbers(crc.offsets).astype(np.int64),
        first_clip=_starts(table.column("video")),
    )


def unite_indexes(indexes: Sequence[SampleIndex], labels: Sequence[Sequence[int]]) -> SampleIndex:
    """The samples of several splits as one, split after split.

    Args:
        labels: for each split, the label of the whole that each of its own labels becomes.
    """
    if len(indexes) == 1:
        return indexes[0]
    shards = _ends([len(index.shards) for index in indexes])
    samples, sizes, checksums = (
        _ends([len(values) for values in column])
        for column in zip(*((index.shard, index.size, index.crc32) for index in indexes), strict=True)
    )
    new_label = [np.array([*mapped, UNLABELLED]) for mapped in labels]  # a label of -1 is the last one's
    parts = list(zip(indexes, shards, samples, sizes, checksums, new_label, strict=False))
    return SampleIndex(
        key=Strings(pa.chunked_array([chunk for index in indexes for chunk in index.key.column.chunks])),
        video=Strings(pa.chunked_array([chunk for index in indexes for chunk in index.video.column.chunks])),
        shards=tuple(name for index in indexes for name in index.shards),
        shard=np.concatenate([index.shard + shard for index, shard, *_ in parts]).astype(np.int32),
        label=np.concatenate([new[index.label] for index, *_, new in parts]),
        shape=np.concatenate([index.shape for index in indexes]),
        offset=np.concatenate([index.offset for index in indexes]),
        size=np.concatenate([index.size for index in indexes]),
        size_start=_joined([index.size_start for index in indexes], sizes),
        crc32=np.concatenate([index.crc32 for index in indexes]),
        crc_start=_joined([index.crc_start for index in indexes], checksums),
        first_clip=_joined([index.first_clip for index in indexes], samples),
    )


def _positions(shard: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int32]:
    """Which of the manifest's shards each sample is in."""
    place = {name: number for number, name in enumerate(names)}
    encoded = shard.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    if unknown := [name for name in found if name not in place]:
        raise ValueError(f"it names shard {unknown[0]!r}, which the manifest doesn't")
    positions: NDArray[np.int32] = np.array([place[name] for name in found], np.int32)[_numbers(encoded.indices)]
    return positions


def _starts(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each run of one value begins, and at last the number of values."""
    if len(column) == 0:
        return np.zeros(1, np.int64)
    changes = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)).combine_chunks().cast(pa.uint8())
    return np.concatenate([[0], np.flatnonzero(_numbers(changes)) + 1, [len(column)]])


def _numbers(array: pa.Array) -> NDArray[Any]:
    """Numbers without a copy, and without `to_numpy`, which first imports pandas (0.2 s) where that is installed."""
    if array.null_count:
        raise ValueError(f"{array.null_count} values are missing")
    return np.from_dlpack(array)


def _ends(counts: Sequence[int]) -> list[int]:
    """Where each of several runs begins when they stand one behind the other, and at last where they end."""
    return [0, *np.cumsum(counts).tolist()]


def _joined(starts: Sequence[NDArray[np.int64]], shifts: Sequence[int]) -> NDArray[np.int64]:
    """Several tables of starts, each ending with its number of items, as one."""
    parts = [start[:-1] + shift for start, shift in zip(starts, shifts, strict=False)]
    return np.append(np.concatenate(parts), shifts[-1])
