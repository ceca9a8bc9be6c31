"""An index that doesn't go with its manifest is refused before anything is read by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vidpipe
from vidpipe.errors import ShardError


def renamed(table: pa.Table) -> pa.Table:
    names = ["x.tar", *table.column("shard").to_pylist()[1:]]
    return table.set_column(table.column_names.index("shard"), "shard", pa.array(names))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.slice(1), "31 rows, but the manifest says 32"),
        (lambda table: table.take(np.arange(32)[::-1]), "not in the order of the manifest's shards"),
        (renamed, "names shard 'x.tar', which the manifest doesn't"),
    ],
)
def test_rows_that_are_not_the_manifests_are_refused(
    motion_shards: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    folder = Path(shutil.copytree(motion_shards / "train", tmp_path / "train"))
    table = pq.read_table(folder / "samples.parquet")
    pq.write_table(change(table), folder / "samples.parquet")
    with pytest.raises(ShardError, match=message):
        vidpipe.Loader(folder)


def test_a_damaged_index_is_refused(motion_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))
    (folder / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(ShardError, match=r"samples\.parquet: damaged"):
        vidpipe.Loader(folder)
