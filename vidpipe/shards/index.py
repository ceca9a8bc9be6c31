"""samples.parquet: one row a sample, with where its bytes lie and what they must hash to."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidpipe.errors import ShardError
from vidpipe.files import whole_file
from vidpipe.shards.checksum import file_sha256
from vidpipe.shards.layout import SAMPLES
from vidpipe.shards.manifest import FileEntry

ROWS_AT_ONCE = 4096
ROWS_A_GROUP = 4 * ROWS_AT_ONCE

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("video", pa.string()),
        ("clip", pa.int32()),
        ("frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("padded_frames", pa.int32()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("duration_seconds", pa.float64()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_fps", pa.float64()),
        ("source_codec", pa.string()),
        ("cls_offset", pa.int64()),
        ("cls_size", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_size", pa.int64()),
        ("json_crc32", pa.uint32()),
        ("payload_offset", pa.int64()),
        ("payload_sizes", pa.list_(pa.int64())),
        ("payload_crc32", pa.list_(pa.uint32())),
    ]
)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row of samples.parquet; the fields are its columns.

    The times of the clip are those of its first and last frame after the video's first one; `duration_seconds` and the
    `source_*` fields are the source video's, its size being that of the upright picture.

    Offsets and sizes are in bytes within the shard and are those of the members' contents. The payload is one file or more,
    which stand one behind the other: `payload_offset` is the first one's. `payload_crc32` has one value for each part of
    the payload that can be read alone (each frame).
    """

    key: str
    shard: str
    label: int
    label_name: str
    video: str
    clip: int
    frames: int
    height: int
    width: int
    padded_frames: int
    start_seconds: float
    end_seconds: float
    duration_seconds: float
    source_width: int
    source_height: int
    source_fps: float
    source_codec: str
    cls_offset: int
    cls_size: int
    json_offset: int
    json_size: int
    json_crc32: int
    payload_offset: int
    payload_sizes: tuple[int, ...]
    payload_crc32: tuple[int, ...]


def write_samples(folder: Path, rows: Iterable[dict[str, Any]] | pa.Table) -> FileEntry:
    """Write all rows of a split, whole or not at all; what the manifest has to say of the file.

    Rows are taken as they come and held as Python objects by the thousand, as columns until a row group is full.
    """
    path = folder / SAMPLES
    with (
        whole_file(path) as stream,
        pq.ParquetWriter(
            stream, SCHEMA, compression="zstd", use_dictionary=["shard", "label_name", "video", "source_codec"]
        ) as writer,
    ):
        for table in [rows] if isinstance(rows, pa.Table) else _row_groups(iter(rows)):
            writer.write_table(table, row_group_size=ROWS_A_GROUP)
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def _row_groups(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    tables: list[pa.Table] = []
    while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
        tables.append(pa.Table.from_pylist(batch, schema=SCHEMA))
        if len(tables) * ROWS_AT_ONCE >= ROWS_A_GROUP:
            yield pa.concat_tables(tables).combine_chunks()
            tables.clear()
    if tables:
        yield pa.concat_tables(tables).combine_chunks()


class SamplesFile:
    """A split's samples.parquet in memory, read once.

    Args:
        folder: the split's.
        written: what the manifest says of it; None takes the file as it is.

    Raises:
        ShardError: it is absent, can't be read, or isn't what was written.
    """

    def __init__(self, folder: Path, written: FileEntry | None = None) -> None:
        self.path = folder / SAMPLES
        try:
            self._content = self.path.read_bytes()
        except FileNotFoundError as error:
            raise ShardError(f"{self.path}: missing; prepare the shards again") from error
        except OSError as error:
            raise ShardError(f"{self.path}: can't be read: {error.strerror or error}") from error
        if written is not None:
            self._compare(written)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows, in the order of shards and of samples within them.

        Raises:
            ShardError: it is damaged or lacks a column.
        """
        with self._opened() as file:
            return file.read(list(columns) if columns else None)

    def row_groups(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The same rows, as many at a time as are stored together, at least one table; raises as `read`."""
        with self._opened() as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, list(columns))
            if file.num_row_groups == 0:
                yield file.read(list(columns))

    def rows(self, first: int, number: int) -> list[dict[str, Any]]:
        """So many rows from one on, for which only those are decoded that are stored together with them; raises as `read`."""
        with self._opened() as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = [*itertools.accumulate(sizes, initial=0)]
            groups = [group for group, size in enumerate(sizes) if first - size < starts[group] < first + number]
            if not groups:
                return []
            rows: list[dict[str, Any]] = (
                file.read_row_groups(groups).slice(first - starts[groups[0]], number).to_pylist()
            )
            return rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The same rows one by one, of which few are held at a time; raises as `read`."""
        with self._opened() as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(pa.BufferReader(self._content)) as file:
                if not file.schema_arrow.equals(SCHEMA):
                    raise ShardError(f"{self.path}: not the columns of this format version; prepare the shards again")
                yield file
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{self.path}: damaged: {' '.join(str(error).split())}") from error

    def _compare(self, written: FileEntry) -> None:
        again = "copy it anew from where it is whole, or prepare the shards again"
        if len(self._content) != written.bytes:
            raise ShardError(
                f"{self.path}: {len(self._content)} bytes, but the manifest says {written.bytes}: truncated or replaced; {again}"
            )
        if hashlib.sha256(self._content).hexdigest() != written.sha256:
            raise ShardError(
                f"{self.path}: its SHA-256 is another than the manifest says: damaged or replaced; {again}"
            )


def read_samples(folder: Path, columns: Sequence[str] | None = None, *, written: FileEntry | None = None) -> pa.Table:
    """The rows of a split, in the order of shards and of samples within them; see `SamplesFile`."""
    return SamplesFile(folder, written).read(columns)
