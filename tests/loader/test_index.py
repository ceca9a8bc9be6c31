"""An index that isn't the one that was written, or doesn't go with its manifest, is refused before anything is read by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from command_line import RunCommand
from loader.damage import flipped, rewrite_samples

import vidpipe as package
from vidpipe.errors import ShardError
from vidpipe.shards.manifest import load_manifest


def renamed(table: pa.Table) -> pa.Table:
    names = ["x.tar", *table.column("shard").to_pylist()[1:]]
    return table.set_column(table.column_names.index("shard"), "shard", pa.array(names))


def unlabelled(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array([None] * len(table), pa.int32()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.slice(1), "31 rows, but the manifest says 32"),
        (lambda table: table.take(np.arange(32)[::-1]), "damaged: it is not in the order of the manifest's shards"),
        (renamed, "damaged: it names shard 'x.tar', which the manifest doesn't"),
        (unlabelled, "damaged: 32 values are missing"),
    ],
)
def test_rows_that_are_not_the_manifests_are_refused(
    motion_shards: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    folder = Path(shutil.copytree(motion_shards / "train", tmp_path / "train"))
    rewrite_samples(folder, change)
    with pytest.raises(ShardError, match=message):
        package.Loader(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"samples\.parquet: \d+ bytes, but the manifest says \d+: truncated"),
        (flipped, r"samples\.parquet: its SHA-256 is another than the manifest says"),
        (None, r"samples\.parquet: missing"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, change: Callable[[bytes], bytes] | None, message: str
) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))
    file = folder / "samples.parquet"
    content = file.read_bytes()
    file.unlink()
    if change:
        file.write_bytes(change(content))
    with pytest.raises(ShardError, match=message):
        package.Loader(folder)
    shown = vidpipe("inspect", folder, "--grid", tmp_path / "grid.png")
    assert shown.code == 1 and "samples.parquet" in shown.err


def test_a_file_that_never_was_an_index_is_refused(motion_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))
    manifest = load_manifest(folder)
    (folder / "samples.parquet").write_bytes(b"PAR1")
    written = manifest.samples_file.model_copy(
        update={"bytes": 4, "sha256": "fbc62d3b511368ee275ddc74117d8689b430e1427220e25d30816201d89ca7b6"}
    )
    manifest.model_copy(update={"samples_file": written}).write(folder)
    with pytest.raises(ShardError, match=r"samples\.parquet: damaged"):
        package.Loader(folder)
