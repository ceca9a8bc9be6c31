"""`vidpipe verify`: sound shards pass; one flipped byte anywhere names shard and sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.shards.index import read_samples


@pytest.fixture
def shards(motion_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def test_sound_shards_pass_deeply(real_shards: Path, vidpipe: RunCommand) -> None:
    result = vidpipe("verify", real_shards, "--deep", "--json")
    report = json.loads(result.out)
    assert result.code == 0 and report["sound"]
    assert {name: split["samples"] for name, split in report["splits"].items()} == {"train": 7, "val": 3}


@pytest.mark.parametrize(
    ("member", "delta"), [("payload", 5000), ("payload", 3), ("json", 10), ("cls", 0), ("cls", -500)]
)
def test_a_flipped_byte_names_shard_and_sample(shards: Path, vidpipe: RunCommand, member: str, delta: int) -> None:
    row = read_samples(shards).to_pylist()[-1]
    _flip(shards / row["shard"], row[f"{member}_offset"] + delta)
    result = vidpipe("verify", shards)
    assert result.code == 1
    assert f"{row['shard']}: sample {row['key']}: damaged" in result.out
    assert result.out.count("sample ") == 1


def test_a_flipped_byte_in_the_archives_end_names_the_shard(shards: Path, vidpipe: RunCommand) -> None:
    _flip(shards / "00000.tar", -1)
    result = vidpipe("verify", shards)
    assert result.code == 1 and "00000.tar: SHA-256 differs" in result.out


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "00000.tar").unlink(), "00000.tar: missing"),
        (lambda folder: _truncate(folder / "00000.tar"), "truncated"),
        (lambda folder: (folder / "00000.idx").write_text("v1.2 0\n"), "00000.idx: differs"),
        (lambda folder: (folder / "rejects.jsonl").write_text('{"path": "x"}\n'), "rejects.jsonl: 1 lines"),
    ],
)
def test_missing_and_changed_files_are_named(shards: Path, vidpipe: RunCommand, damage, expected: str) -> None:
    damage(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1 and expected in result.out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "unfinished"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: _newer(folder / "manifest.json"), "format version 99, but this vidpipe reads version 1"),
        (lambda folder: (folder / "samples.parquet").write_bytes(b"PAR1"), "samples.parquet: damaged"),
    ],
)
def test_unreadable_shards_are_one_clear_line(shards: Path, vidpipe: RunCommand, change, expected: str) -> None:
    change(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1
    assert expected in result.err and len(result.err.strip().splitlines()) == 1


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2048])


def _newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
