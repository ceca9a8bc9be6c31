"""`vidpipe verify`: sound shards pass; one flipped byte anywhere, or a row that isn't its sample's, names shard and sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from command_line import RunCommand

from vidpipe.shards import verify
from vidpipe.shards.checksum import crc32
from vidpipe.shards.codecs import CodecSpec
from vidpipe.shards.index import SamplesFile, read_samples, write_samples
from vidpipe.shards.manifest import FileEntry, load_manifest
from vidpipe.shards.tar import open_shard
from vidpipe.shards.verify import verify_split


@pytest.fixture
def shards(motion_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> FileEntry:
    """Put other values into the last row of the index."""
    *rows, last = read_samples(folder).to_pylist()
    return write_samples(folder, [*rows, {**last, **change(last)}])


def test_sound_shards_pass_deeply(real_shards: Path, vidpipe: RunCommand) -> None:
    result = vidpipe("verify", real_shards, "--deep", "--json")
    report = json.loads(result.out)
    assert result.code == 0 and report["sound"]
    assert [(name, split["samples"]) for name, split in report["splits"].items()] == [("train", 7), ("val", 3)]


@pytest.mark.parametrize(
    ("member", "delta"), [("payload", 5000), ("payload", 3), ("json", 10), ("cls", 0), ("cls", 5), ("cls", -500)]
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
        (lambda folder: (folder / "00000.idx").unlink(), "00000.idx: missing"),
        (lambda folder: (folder / "samples.parquet").unlink(), "samples.parquet: missing"),
        (
            lambda folder: (folder / "samples.parquet").write_bytes(b"PAR1"),
            "samples.parquet: 4 bytes, but the manifest",
        ),
        (lambda folder: _flip(folder / "samples.parquet", 1000), "samples.parquet: SHA-256 differs"),
        (lambda folder: (folder / "rejects.jsonl").write_bytes(b'{"path": "\xff"}\n'), "rejects.jsonl: 1 lines"),
    ],
)
def test_missing_and_changed_files_are_named(shards: Path, vidpipe: RunCommand, damage, expected: str) -> None:
    damage(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1 and expected in result.out


def test_an_index_that_is_not_the_one_written_is_a_fault_and_not_used(shards: Path, vidpipe: RunCommand) -> None:
    written = load_manifest(shards).samples_file
    rewritten = _rewrite(shards, lambda row: {"key": row["key"][:-1] + "9", "payload_sizes": [], "json_offset": None})
    assert rewritten != written
    for options in ((), ("--deep",)):
        result = vidpipe("verify", shards, *options)
        assert result.code == 1 and "samples.parquet: " in result.out and "1 faults" in result.out
    _flip(shards / "00000.tar", 700)
    assert "00000.tar: SHA-256 differs" in vidpipe("verify", shards).out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: {"label": row["label"] - 1}, "(cls) than the archive"),
        (lambda row: {"payload_crc32": [1] * len(row["payload_crc32"])}, "(payload) than the archive"),
        (lambda row: {"json_crc32": 1}, "(json) than the archive"),
        (lambda row: {"height": row["width"], "width": row["height"] + 1}, "(payload) than the archive"),
        (lambda row: {"label_name": "x"}, "label 6 is not 'x' in the manifest"),
        (lambda row: {"end_seconds": 9.0}, "end_seconds is 9.0 in samples.parquet, but 1.9375"),
        (lambda row: {"video": "x.mp4"}, "video is 'x.mp4' in samples.parquet, but 'val/shrink/"),
    ],
)
def test_a_row_that_is_not_its_samples_is_found_deeply(
    shards: Path, vidpipe: RunCommand, change: Callable[[dict[str, Any]], dict[str, Any]], expected: str
) -> None:
    manifest = load_manifest(shards)
    manifest.model_copy(update={"samples_file": _rewrite(shards, change)}).write(shards)
    row = read_samples(shards).to_pylist()[-1]
    assert vidpipe("verify", shards).code == 0
    result = vidpipe("verify", shards, "--deep")
    assert result.code == 1
    assert f"{row['shard']}: sample {row['key']}: " in result.out and expected in result.out
    assert result.out.count("sample ") == result.out.count(f"sample {row['key']}")


@pytest.mark.parametrize("member", ["payload", "json", "cls"])
def test_a_row_that_points_elsewhere_is_found(shards: Path, vidpipe: RunCommand, member: str) -> None:
    samples_file = _rewrite(shards, lambda row: {f"{member}_offset": row[f"{member}_offset"] + 512})
    load_manifest(shards).model_copy(update={"samples_file": samples_file}).write(shards)
    row = read_samples(shards).to_pylist()[-1]
    assert f"{row['shard'].replace('tar', 'idx')}: differs from samples.parquet" in vidpipe("verify", shards).out
    result = vidpipe("verify", shards, "--deep")
    assert f"{row['shard']}: sample {row['key']}: samples.parquet says otherwise" in result.out
    assert result.code == 1 and result.out.count("sample ") == 1


@pytest.mark.parametrize("name", ["zzz.tar", "00000.tar"])
def test_a_row_of_no_shard_or_away_from_its_others_is_found(shards: Path, vidpipe: RunCommand, name: str) -> None:
    samples_file = _rewrite(shards, lambda row: {"shard": name})
    load_manifest(shards).model_copy(update={"samples_file": samples_file}).write(shards)
    last, result = read_samples(shards).to_pylist()[-1], vidpipe("verify", shards)
    assert result.code == 1 and f"{name}: sample {last['key']}: in samples.parquet, but" in result.out
    assert result.out.count("sample ") == 1


@pytest.mark.parametrize(
    ("counts", "samples", "expected"),
    [
        ({"videos": 17}, 0, "manifest.json: the counts don't add up: 17 videos, but 16 written and 0 rejected"),
        ({"videos": 17, "written": 17}, 0, "manifest.json: 17 videos written, but samples.parquet has 16"),
        ({"videos": 17, "rejected": 1}, 0, "rejects.jsonl: 0 lines, but the manifest says 1 rejected"),
        ({"clips": 17}, 0, "manifest.json: 17 clips, but samples.parquet has 16"),
        ({}, 1, "00000.tar: 8 rows in samples.parquet, but the manifest says 9 samples"),
    ],
)
def test_counts_that_are_not_the_shards_are_faults(
    shards: Path, vidpipe: RunCommand, counts: dict[str, int], samples: int, expected: str
) -> None:
    manifest = load_manifest(shards)
    first, *others = manifest.shards
    entries = (first.model_copy(update={"samples": first.samples + samples}), *others)
    changed = manifest.counts.model_copy(update=counts)
    manifest.model_copy(update={"counts": changed, "shards": entries}).write(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1 and "1 faults" in result.out and expected in result.out


def test_keys_that_occur_twice_are_a_fault(shards: Path, vidpipe: RunCommand) -> None:
    first = read_samples(shards).to_pylist()[0]
    samples_file = _rewrite(shards, lambda row: {"key": first["key"]})
    load_manifest(shards).model_copy(update={"samples_file": samples_file}).write(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1 and "samples.parquet: keys occur more than once" in result.out


@pytest.mark.parametrize(
    ("frame", "description", "expected"),
    [
        (lambda jpeg: jpeg, lambda told: told, None),
        (lambda jpeg: b"garbage", lambda told: told, "can't be decoded: "),
        (lambda jpeg: _jpeg(16, 24), lambda told: told, "decodes to [2, 16, 24, 3], but the index says [2, 24, 32, 3]"),
        (lambda jpeg: jpeg, lambda told: b"{}", "its JSON can't be read: 'times_seconds'"),
    ],
)
def test_what_was_written_as_it_is_but_is_no_such_clip_is_found_deeply(
    shards: Path,
    vidpipe: RunCommand,
    frame: Callable[[bytes], bytes],
    description: Callable[[bytes], bytes],
    expected: str | None,
) -> None:
    """One sample without a label, whose checksums are all true."""
    row, manifest = {**read_samples(shards).to_pylist()[0], "label": -1, "label_name": ""}, load_manifest(shards)
    with (shards / row["shard"]).open("rb") as stream:
        stream.seek(row["json_offset"])
        told = description(json.dumps({**json.loads(stream.read(row["json_size"])), "label": ""}).encode())
    frames = {"0000.jpg": frame(_jpeg(24, 32)), "0001.jpg": frame(_jpeg(24, 32))}
    files = {"cls": b"-1", "json": told, **frames}
    with open_shard(shards / row["shard"]) as writer:
        members = writer.add(row["key"], {name: (content,) for name, content in files.items()})
    assert [member.extension for member in members] == ["0000.jpg", "0001.jpg", "cls", "json"]
    placed = {f"{m.extension}_{what}": getattr(m, what) for m in members[2:] for what in ("offset", "size")}
    crcs = {"json_crc32": crc32(told), "payload_crc32": [crc32(content) for content in frames.values()]}
    payload = {"payload_offset": members[0].offset, "payload_sizes": [len(content) for content in frames.values()]}
    samples_file = write_samples(shards, [{**row, **placed, **crcs, **payload, "frames": 2, "height": 24, "width": 32}])
    written = {"samples": 1, "bytes": writer.summary.bytes, "sha256": writer.summary.sha256}
    manifest.model_copy(
        update={
            "codec": CodecSpec(name="jpeg", quality=90),
            "shards": (manifest.shards[0].model_copy(update=written),),
            "counts": manifest.counts.model_copy(update={"videos": 1, "written": 1, "clips": 1}),
            "samples_file": samples_file,
        }
    ).write(shards)
    assert vidpipe("verify", shards).code == 0
    result = vidpipe("verify", shards, "--deep")
    assert result.code == (expected is not None)
    assert expected is None or f"00000.tar: sample {row['key']}: {expected}" in result.out


def test_rows_are_read_no_further_than_the_shard_that_is_checked(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a split with many shards, of which none is there."""
    manifest, (row, *_) = load_manifest(shards), read_samples(shards).to_pylist()
    entries = [manifest.shards[0].model_copy(update={"name": f"{number:05d}.tar"}) for number in range(100, 120)]
    many = tmp_path / "many"
    many.mkdir()
    rows = ({**row, "shard": entry.name, "key": f"{n:09d}-000"} for entry in entries for n in range(20))
    manifest.model_copy(update={"shards": tuple(entries), "samples_file": write_samples(many, rows)}).write(many)
    read, when_checked = [], []

    class Counted(SamplesFile):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for one in super().__iter__():
                read.append(one["key"])
                yield one

    check = verify._check_shard
    monkeypatch.setattr(verify, "SamplesFile", Counted)
    monkeypatch.setattr(verify, "_check_shard", lambda *a, **k: when_checked.append(len(read)) or check(*a, **k))
    faults = verify_split(many).faults
    assert sum(fault.message == "missing" for fault in faults) == 20
    assert when_checked == [
        min(400, 20 * number + 1) for number in range(1, 21)
    ]  # the next shard's first row ends one's


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "unfinished"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: _version(folder / "manifest.json", 99), "format version 99, but this vidpipe reads version 1"),
        (lambda folder: _version(folder / "manifest.json", "2"), "damaged: format_version is '2', expected a number"),
    ],
)
def test_unreadable_shards_are_one_clear_line(shards: Path, vidpipe: RunCommand, change, expected: str) -> None:
    change(shards)
    result = vidpipe("verify", shards)
    assert result.code == 1
    assert expected in result.err and len(result.err.strip().splitlines()) == 1


def test_a_folder_of_data_sets_names_them(shards: Path, vidpipe: RunCommand) -> None:
    for name in ("one", "two"):
        shutil.copytree(shards, shards.parent / "sets" / name / "val")
    result = vidpipe("verify", shards.parent / "sets")
    assert result.code == 1 and "sets: holds data sets, no splits: one, two; name one of them" in result.err
    (shards / "manifest.json").unlink()
    assert f"{shards}: preparation is unfinished" in vidpipe("verify", shards.parent).err


def _jpeg(height: int, width: int) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8)))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2048])


def _version(path: Path, version: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
