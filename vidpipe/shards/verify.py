"""Proves that a split folder is what its manifest says: sizes, hashes, indexes, counts, and with `deep` every frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidpipe.errors import ShardError
from vidpipe.shards.checksum import crc32
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.features import FeatureFormat
from vidpipe.shards.index import read_samples
from vidpipe.shards.layout import MANIFEST, REJECTS, index_name, label_bytes
from vidpipe.shards.manifest import Manifest, ShardEntry, load_manifest
from vidpipe.shards.tar import BLOCK, Member, TarSummary, dali_index, header, place_members

CHUNK_BYTES = 1 << 22


class PayloadFormat(Protocol):
    """What has to be known of a payload to verify it; see `Codec`."""

    def extensions(self, frames: int) -> list[str]:
        """What its files are called."""

    def expected_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """What `decoded_shape` should give."""

    def decoded_shape(self, members: Sequence[bytes]) -> tuple[int, ...]:
        """Of a payload, all of which is decoded for it."""

    def intact(self, members: Sequence[bytes], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Whether it is, byte for byte, what was written."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `shard` and `key` are empty where it isn't about one."""

    shard: str
    key: str
    message: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.shard, self.key and f"sample {self.key}") if part)
        return f"{where}: {self.message}" if where else self.message


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what is wrong with it."""

    folder: Path
    shards: int
    samples: int
    bytes: int
    deep: bool
    faults: tuple[Fault, ...]


def verify_split(folder: Path, *, deep: bool = False, on_shard: Callable[[str], None] | None = None) -> Verification:
    """Check one split folder.

    Sizes, SHA-256 of every shard, `.idx` against the tar, samples.parquet against both, counts. When a shard's hash is
    wrong, its samples are searched byte by byte for the place. With `deep`, every sample is decoded too.

    Raises:
        ShardError: the folder has no readable manifest or index.
    """
    manifest = load_manifest(folder)
    rows: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in manifest.shards}
    faults = []
    for row in read_samples(folder).to_pylist():
        if row["shard"] in rows:
            rows[row["shard"]].append(row)
        else:
            faults.append(Fault(row["shard"], row["key"], "in samples.parquet, but its shard is not in the manifest"))
    codec = FeatureFormat(manifest.features) if manifest.features else make_codec(manifest.codec)
    for entry in manifest.shards:
        faults += _check_shard(folder, entry, rows[entry.name], manifest=manifest, codec=codec, deep=deep)
        if on_shard:
            on_shard(entry.name)
    faults += _check_counts(folder, manifest, [row for shard in rows.values() for row in shard])
    total = sum(entry.bytes for entry in manifest.shards)
    return Verification(folder, len(manifest.shards), manifest.num_samples, total, deep, tuple(faults))


def _check_shard(
    folder: Path,
    entry: ShardEntry,
    rows: Sequence[Mapping[str, Any]],
    *,
    manifest: Manifest,
    codec: PayloadFormat,
    deep: bool,
) -> Iterator[Fault]:
    path = folder / entry.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        yield Fault(entry.name, "", "missing")
        return
    if size != entry.bytes:
        yield Fault(entry.name, "", f"{size} bytes, but the manifest says {entry.bytes}: truncated or replaced")
        return
    if len(rows) != entry.samples:
        yield Fault(
            entry.name, "", f"{len(rows)} rows in samples.parquet, but the manifest says {entry.samples} samples"
        )
    found = False
    if _sha256(path) != entry.sha256:
        for fault in _search(path, rows, manifest, codec):
            found = True
            yield fault
        if not found:
            yield Fault(entry.name, "", "SHA-256 differs from the manifest's, in the archive's own structure")
    index = path.with_name(index_name(path.name))
    if not index.is_file() or index.read_bytes() != dali_index(_summary(rows, codec)):
        yield Fault(index.name, "", "differs from samples.parquet" if index.is_file() else "missing")
    if deep:
        yield from _decode_all(path, rows, codec)


def _search(path: Path, rows: Sequence[Mapping[str, Any]], manifest: Manifest, codec: PayloadFormat) -> Iterator[Fault]:
    """Name the samples whose bytes are not what they were."""
    with path.open("rb") as stream:
        for row in rows:
            contents, damaged = {}, []
            for member in _members(row, codec):
                stream.seek(member.offset - BLOCK)
                intact = stream.read(BLOCK) == header(f"{row['key']}.{member.extension}", member.size)
                contents[member.extension] = stream.read(member.size)
                if not intact or stream.read(-member.size % BLOCK).strip(b"\0"):
                    damaged.append(f"the archive's own bytes around {member.extension}")
            if contents.pop("cls") != label_bytes(int(row["label"]), len(manifest.classes)):
                damaged.append("cls")
            if crc32(contents.pop("json")) != int(row["json_crc32"]):
                damaged.append("json")
            payload = [contents[extension] for extension in codec.extensions(row["frames"])]
            if not codec.intact(payload, _shape(row), row["payload_crc32"]):
                damaged.append("payload")
            if damaged:
                yield Fault(
                    path.name, row["key"], f"damaged ({', '.join(damaged)}): bytes differ from what was written"
                )


def _shape(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["frames"], row["height"], row["width"]


def _decode_all(path: Path, rows: Sequence[Mapping[str, Any]], codec: PayloadFormat) -> Iterator[Fault]:
    with path.open("rb") as stream:
        for row in rows:
            payload = []
            for member in place_members(codec.extensions(row["frames"]), row["payload_offset"], row["payload_sizes"]):
                stream.seek(member.offset)
                payload.append(stream.read(member.size))
            try:
                shape = codec.decoded_shape(payload)
            except ValueError as error:
                yield Fault(path.name, row["key"], f"can't be decoded: {error}")
                continue
            expected = codec.expected_shape(_shape(row))
            if tuple(shape) != expected:
                yield Fault(path.name, row["key"], f"decodes to {list(shape)}, but the index says {list(expected)}")
            stream.seek(row["json_offset"])
            try:
                json.loads(stream.read(row["json_size"]))
            except ValueError as error:
                yield Fault(path.name, row["key"], f"its JSON can't be read: {error}")


def _check_counts(folder: Path, manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    counts = manifest.counts
    if counts.videos != counts.written + counts.rejected:
        text = f"{counts.videos} videos, but {counts.written} written and {counts.rejected} rejected"
        yield Fault(MANIFEST, "", f"the counts don't add up: {text}")
    videos = len({row["video"] for row in rows})
    if videos != counts.written:
        yield Fault(MANIFEST, "", f"{counts.written} videos written, but samples.parquet has {videos}")
    if len(rows) != counts.clips:
        yield Fault(MANIFEST, "", f"{counts.clips} clips, but samples.parquet has {len(rows)}")
    if len({row["key"] for row in rows}) != len(rows):
        yield Fault("samples.parquet", "", "keys occur more than once")
    rejects = folder / REJECTS
    lines = rejects.read_text(encoding="utf-8").splitlines() if rejects.is_file() else []
    if len(lines) != counts.rejected:
        yield Fault(REJECTS, "", f"{len(lines)} lines, but the manifest says {counts.rejected} rejected")


def _members(row: Mapping[str, Any], codec: PayloadFormat) -> list[Member]:
    """All files of a sample, in the order of the archive."""
    payload = place_members(codec.extensions(row["frames"]), row["payload_offset"], row["payload_sizes"])
    small = [Member(name, row[f"{name}_offset"], row[f"{name}_size"]) for name in ("cls", "json")]
    return sorted([*payload, *small], key=lambda member: member.offset)


def _summary(rows: Sequence[Mapping[str, Any]], codec: PayloadFormat) -> TarSummary:
    return TarSummary(samples=[(row["key"], tuple(_members(row, codec))) for row in rows])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror}") from error
    return digest.hexdigest()
