"""samples.parquet is written from rows as they come, in row groups of one size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vidpipe.shards import index


def test_rows_are_written_in_groups_and_read_back_in_order(
    motion_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(index, "ROWS_A_GROUP", 6)
    rows = list(index.SamplesFile(motion_shards / "val"))
    written = index.write_samples(tmp_path, iter(rows))
    assert index.read_samples(tmp_path).to_pylist() == rows == index.read_samples(motion_shards / "val").to_pylist()
    with pq.ParquetFile(tmp_path / "samples.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [6, 6, 4]
    samples = index.SamplesFile(tmp_path)
    for first, number in ((0, 1), (4, 5), (5, 8), (6, 6), (12, 4), (0, 16), (6, 0)):
        assert samples.rows(first, number) == rows[first : first + number]
    table = index.read_samples(motion_shards / "val")
    assert index.write_samples(tmp_path, table) == written, "a table gives the same file"
    assert index.read_samples(tmp_path).equals(table)


def test_a_file_whose_rows_end_in_an_error_does_not_appear(motion_shards: Path, tmp_path: Path) -> None:
    def rows():
        yield from index.SamplesFile(motion_shards / "val")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        index.write_samples(tmp_path, rows())
    assert not list(tmp_path.iterdir())
