"""The samples of a split as arrays: what the loader asks of samples.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """A column of text: a few bytes for each value beside its own, where a Python string takes 50.

    Args:
        content: uint8: all values in UTF-8, one behind the other.
        starts: where each begins, and at last where they end.
        firsts: [V + 1]: value v stands at the places firsts[v] to firsts[v+1]; None for one place each.
    """

    def __init__(
        self, content: NDArray[np.uint8], starts: NDArray[Any], firsts: NDArray[np.int64] | None = None
    ) -> None:
        self.content, self.starts, self._firsts = content, starts, firsts

    def __getitem__(self, place: int) -> str:
        return self.take([place])[0]

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The values at some places."""
        values = places if self._firsts is None else np.searchsorted(self._firsts, places, side="right") - 1
        return [self.content[self.starts[value] : self.starts[value + 1]].tobytes().decode() for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleIndex(SampleLocations):
    """One entry a sample, in the order of samples.parquet.

    Attributes:
        label: int32 or int64 [N].
        first_clip: int64 [V + 1]: the samples of video v are first_clip[v] to first_clip[v+1].
    """

    key: Strings
    video: Strings
    label: NDArray[Any]
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
    try:
        index = _index(samples.row_groups(_COLUMNS), tuple(entry.name for entry in manifest.shards))
    except (pa.ArrowException, ValueError) as error:
        raise ShardError(f"{samples.path}: damaged: {one_line(error)}; prepare the shards again") from error
    if len(index) != manifest.num_samples:
        raise ShardError(f"{samples.path}: {len(index)} rows, but the manifest says {manifest.num_samples}")
    pa.default_memory_pool().release_unused()  # which keeps what columns were decoded in
    return index


def _index(tables: Iterable[pa.Table], shards: tuple[str, ...]) -> SampleIndex:
    """The index that row groups make together; what is decoded of one is let go before the next."""
    place = {name: number for number, name in enumerate(shards)}
    columns: dict[str, NDArray[Any]] = {}
    last = pa.nulls(1, pa.string())
    for table in tables:
        key, shard, label, video, *shape, offset, sizes, crc32 = (table.column(n).combine_chunks() for n in _COLUMNS)
        is_first = _is_first(video, last)
        last = pa.concat_arrays([last, video])[-1:]
        for name, values in (
            *_text("key", key),
            *_text("video", video.filter(is_first)),
            ("is_first", _numbers(is_first.cast(pa.uint8()))),
            ("shard", _positions(shard, place)),
            ("label", _numbers(label)),
            ("shape", np.stack([_narrow(_numbers(side)) for side in shape], axis=1)),
            ("offset", _narrow(_numbers(offset))),
            ("size", _narrow(_numbers(sizes.flatten()))),
            ("sizes", _narrow(_numbers(sizes.value_lengths()))),
            ("crc32", _numbers(crc32.flatten())),
            ("checksums", _narrow(_numbers(crc32.value_lengths()))),
        ):
            columns[name] = _appended(columns.get(name), values)
    if (columns["shard"][1:] < columns["shard"][:-1]).any():
        raise ValueError("it is not in the order of the manifest's shards")
    first_clip = np.append(np.flatnonzero(columns["is_first"]), len(columns["is_first"]))
    return SampleIndex(
        key=Strings(columns["key"], _starts(columns["key lengths"])),
        video=Strings(columns["video"], _starts(columns["video lengths"]), first_clip),
        shards=shards,
        shard=columns["shard"],
        label=columns["label"],
        shape=columns["shape"],
        offset=columns["offset"],
        size=columns["size"],
        size_start=_starts(columns["sizes"]),
        crc32=columns["crc32"],
        crc_start=_starts(columns["checksums"]),
        first_clip=first_clip,
    )


def _appended(array: NDArray[Any] | None, values: NDArray[Any]) -> NDArray[Any]:
    """An array with more values, which takes no other memory: pieces to be joined would take twice as much, and leave holes in it."""
    if array is None:
        return values.copy()
    array = array.astype(np.promote_types(array.dtype, values.dtype), copy=False)
    number = len(array)
    array.resize((number + len(values), *values.shape[1:]), refcheck=False)
    array[number:] = values
    return array


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
    first_clip = _joined([index.first_clip for index in indexes], samples).astype(np.int64)
    return SampleIndex(
        key=_together([index.key for index in indexes]),
        video=_together([index.video for index in indexes], first_clip),
        shards=tuple(name for index in indexes for name in index.shards),
        shard=np.concatenate([index.shard + shard for index, shard, *_ in parts]).astype(np.int32),
        label=np.concatenate([new[index.label] for index, *_, new in parts]),
        shape=np.concatenate([index.shape for index in indexes]),
        offset=np.concatenate([index.offset for index in indexes]),
        size=np.concatenate([index.size for index in indexes]),
        size_start=_joined([index.size_start for index in indexes], sizes),
        crc32=np.concatenate([index.crc32 for index in indexes]),
        crc_start=_joined([index.crc_start for index in indexes], checksums),
        first_clip=first_clip,
    )


def _together(parts: Sequence[Strings], firsts: NDArray[np.int64] | None = None) -> Strings:
    starts = _joined([part.starts for part in parts], _ends([len(part.content) for part in parts]))
    return Strings(np.concatenate([part.content for part in parts]), starts, firsts)


def _text(name: str, column: pa.Array) -> Iterator[tuple[str, NDArray[Any]]]:
    """All values of a column of text, one behind the other, and their lengths."""
    _, starts, content = column.buffers()
    ends = [column.offset, column.offset + len(column)]
    first, end = np.frombuffer(starts, np.int32)[ends] if len(column) else (0, 0)
    yield name, np.frombuffer(content or b"", np.uint8)[first:end]
    yield f"{name} lengths", _narrow(_numbers(pc.binary_length(column)))


def _positions(shard: pa.Array, place: Mapping[str, int]) -> NDArray[np.int32]:
    """Which of the manifest's shards each sample is in."""
    encoded = shard.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    if unknown := [name for name in found if name not in place]:
        raise ValueError(f"it names shard {unknown[0]!r}, which the manifest doesn't")
    positions: NDArray[np.int32] = np.array([place[name] for name in found], np.int32)[_numbers(encoded.indices)]
    return positions


def _is_first(column: pa.Array, last: pa.Array) -> pa.Array:
    """Whether each value differs from the one before it; before the first one stands `last`, which may be missing."""
    if column.null_count:
        raise ValueError(f"{column.null_count} videos are missing")
    before = pa.concat_arrays([last, column])[:-1]
    return pc.coalesce(pc.not_equal(column, before), pc.is_valid(column))


def _numbers(array: pa.Array) -> NDArray[Any]:
    """Numbers without a copy, and without `to_numpy`, which first imports pandas (0.2 s) where that is installed."""
    if array.null_count:
        raise ValueError(f"{array.null_count} values are missing")
    return np.from_dlpack(array)


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """The same whole numbers in 16 or 32 bits, where they fit."""
    if values.size == 0 or values.min() < 0:
        return values
    return values.astype(_narrowest(values.max()), copy=False)


def _narrowest(most: int) -> type[np.unsignedinteger[Any] | np.int64]:
    """The type of the fewest bits that holds whole numbers from 0 to `most`."""
    return np.uint16 if most < 1 << 16 else np.uint32 if most < 1 << 32 else np.int64


def _starts(counts: NDArray[Any]) -> NDArray[Any]:
    """Where each of several runs begins when they stand one behind the other, and at last where they end."""
    starts = np.zeros(len(counts) + 1, _narrowest(counts.sum(dtype=np.int64)))
    np.cumsum(counts, out=starts[1:])
    return starts


def _ends(counts: Sequence[int]) -> list[int]:
    """Where each of several runs begins when they stand one behind the other, and at last where they end."""
    return [0, *np.cumsum(counts).tolist()]


def _joined(starts: Sequence[NDArray[Any]], shifts: Sequence[int]) -> NDArray[Any]:
    """Several tables of starts, each ending with its number of items, as one."""
    parts = [start[:-1].astype(np.int64) + shift for start, shift in zip(starts, shifts, strict=False)]
    return _narrow(np.append(np.concatenate(parts), shifts[-1]))
