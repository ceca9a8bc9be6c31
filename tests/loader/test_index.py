"""An index says what its file says; one that isn't what was written, or doesn't go with its manifest, is refused."""

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
from vidpipe.loader.reading.index import load_index
from vidpipe.shards.index import SCHEMA, read_samples, write_samples
from vidpipe.shards.manifest import load_manifest


def renamed(table: pa.Table) -> pa.Table:
    names = ["x.tar", *table.column("shard").to_pylist()[1:]]
    return table.set_column(table.column_names.index("shard"), "shard", pa.array(names))


def unlabelled(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array([None] * len(table), pa.int32()))


def without_videos(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("video"), "video", pa.array([None] * len(table), pa.string()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.slice(1), "31 rows, but the manifest says 32"),
        (lambda table: table.take(np.arange(32)[::-1]), "damaged: it is not in the order of the manifest's shards"),
        (renamed, "damaged: it names shard 'x.tar', which the manifest doesn't"),
        (unlabelled, "damaged: 32 values are missing"),
        (without_videos, "damaged: 32 videos are missing"),
    ],
)
def test_rows_that_are_not_the_manifests_are_refused(
    motion_shards: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    folder = Path(shutil.copytree(motion_shards / "train", tmp_path / "train"))
    rewrite_samples(folder, change)
    with pytest.raises(ShardError, match=message):
        package.Loader(folder)


def test_a_split_whose_videos_were_all_rejected_is_refused(motion_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))
    written = write_samples(folder, iter(()))
    load_manifest(folder).model_copy(update={"samples_file": written, "shards": ()}).write(folder)
    with pytest.raises(ShardError, match=r"val: holds no samples; all its videos were rejected, see rejects\.jsonl"):
        package.Loader(folder)


@pytest.mark.parametrize("rows", [7, 100])
def test_it_says_what_the_file_says_in_row_groups_of_any_size(
    motion_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Videos whose clips are in two of them, and numbers that need more bits in a later one."""

    def change(table: pa.Table) -> pa.Table:
        written = table.to_pylist()
        for place, row in enumerate(written):
            row |= {"video": f"é{place // 3}", "label": place - 1, "height": 40 * place**3}
            row |= {"payload_offset": 3 ** (place // 2) << 9, "payload_sizes": [5**place % 2**40] * (place % 4)}
        return pa.Table.from_pylist(written, schema=SCHEMA)

    monkeypatch.setattr("vidpipe.shards.index.ROWS_A_GROUP", rows)
    folder = Path(shutil.copytree(motion_shards / "train", tmp_path / "train"))
    rewrite_samples(folder, change)
    index, expected = load_index(folder, load_manifest(folder)), read_samples(folder).to_pylist()
    assert index.first_clip.tolist() == [*range(0, 32, 3), 32]
    for sample, row in enumerate(expected):
        sizes = index.size[index.size_start[sample] : index.size_start[sample + 1]]
        checksums = index.crc32[index.crc_start[sample] : index.crc_start[sample + 1]]
        found = (index.key[sample], index.video[sample], index.shards[index.shard[sample]])
        assert found == (row["key"], row["video"], row["shard"])
        assert (int(index.label[sample]), int(index.offset[sample])) == (row["label"], row["payload_offset"])
        assert index.shape_of(sample) == (row["frames"], row["height"], row["width"])
        assert (sizes.tolist(), checksums.tolist()) == (row["payload_sizes"], row["payload_crc32"])


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
