"""Proves that a split folder is what its manifest says: sizes, hashes, counts, and with `deep` every row and every frame."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Protocol

from vidpipe.shards.checksum import crc32, file_sha256
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.features import FeatureFormat
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.layout import MANIFEST, REJECTS, SAMPLES, UNLABELLED, index_name, label_bytes, video_of
from vidpipe.shards.manifest import Manifest, ShardEntry, load_manifest
from vidpipe.shards.tar import BLOCK, Member, TarSummary, dali_index, header, place_members

Row = Mapping[str, Any]


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


def verify_split(folder: Path, *, deep: bool = False) -> Verification:
    """Check one split folder.

    Sizes and SHA-256 of samples.parquet and of every shard, every `.idx` against the rows of samples.parquet, counts. When a
    shard's hash is wrong, its samples are searched byte by byte for the place. With `deep`, every row of samples.parquet is
    compared with its sample in the archive, and every sample is decoded. A samples.parquet that isn't the one that was written is
    a fault, and isn't used.

    Raises:
        ShardError: the folder has no readable manifest, or a file can't be read.
    """
    manifest = load_manifest(folder)
    codec = FeatureFormat(manifest.features) if manifest.features else make_codec(manifest.codec)
    faults = list(_check_index(folder, manifest))
    samples = None if faults else SamplesFile(folder, manifest.samples_file)
    check = partial(_check_shard, folder, manifest=manifest, codec=codec, deep=deep)
    left = deque(manifest.shards)
    for shard, rows in groupby(samples or (), key=itemgetter("shard")):  # so that one shard's rows are held at a time
        if shard not in (entry.name for entry in left):
            message = f"in {SAMPLES}, but its shard is not in the manifest, or should come before the row above"
            faults += [Fault(shard, row["key"], message) for row in rows]
            continue
        while (entry := left.popleft()).name != shard:
            faults += check(entry, [])
        faults += check(entry, list(rows))
    for entry in left:
        faults += check(entry, None if samples is None else [])
    faults += _check_counts(folder, manifest, samples)
    total = sum(entry.bytes for entry in manifest.shards)
    return Verification(folder, len(manifest.shards), manifest.num_samples, total, deep, tuple(faults))


def _check_index(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    written = manifest.samples_file
    if fault := _size_fault(folder / SAMPLES, written.bytes):
        yield fault
    elif file_sha256(folder / SAMPLES) != written.sha256:
        yield Fault(
            SAMPLES, "", "SHA-256 differs from the manifest's: damaged or replaced; no sample can be found by it"
        )


def _check_shard(
    folder: Path,
    entry: ShardEntry,
    rows: Sequence[Row] | None,
    *,
    manifest: Manifest,
    codec: PayloadFormat,
    deep: bool,
) -> Iterator[Fault]:
    """Without rows, only whether the file is the one that was written."""
    path = folder / entry.name
    if fault := _size_fault(path, entry.bytes):
        yield fault
        return
    damaged = file_sha256(path) != entry.sha256
    if rows is None:
        if damaged:
            yield Fault(entry.name, "", "SHA-256 differs from the manifest's")
        return
    if len(rows) != entry.samples:
        yield Fault(entry.name, "", f"{len(rows)} rows in {SAMPLES}, but the manifest says {entry.samples} samples")
    found = list(_check_samples(path, rows, manifest, codec, damaged=damaged, deep=deep)) if damaged or deep else []
    yield from found
    if damaged and not found:
        yield Fault(entry.name, "", "SHA-256 differs from the manifest's, in the archive's own structure")
    index = path.with_name(index_name(path.name))
    if not index.is_file() or index.read_bytes() != dali_index(_summary(rows, codec)):
        yield Fault(index.name, "", f"differs from {SAMPLES}" if index.is_file() else "missing")


def _size_fault(path: Path, expected: int) -> Fault | None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Fault(path.name, "", "missing")
    if size != expected:
        return Fault(path.name, "", f"{size} bytes, but the manifest says {expected}: truncated or replaced")
    return None


def _check_samples(
    path: Path, rows: Sequence[Row], manifest: Manifest, codec: PayloadFormat, *, damaged: bool, deep: bool
) -> Iterator[Fault]:
    """Name the samples that aren't what their rows say.

    Args:
        damaged: whether the archive isn't what was written, which then is why.
    """
    with path.open("rb") as stream:
        for row in rows:
            contents, different = _read_sample(stream, row, codec)
            payload = [contents[extension] for extension in codec.extensions(row["frames"])]
            if contents["cls"] != label_bytes(int(row["label"]), len(manifest.classes)):
                different.append("cls")
            if crc32(contents["json"]) != int(row["json_crc32"]):
                different.append("json")
            if not codec.intact(payload, _shape(row), row["payload_crc32"]):
                different.append("payload")
            if different:
                names = ", ".join(different)
                yield Fault(
                    path.name,
                    row["key"],
                    f"damaged ({names}): bytes differ from what was written"
                    if damaged
                    else f"{SAMPLES} says otherwise ({names}) than the archive, which is as it was written",
                )
            elif deep:
                for message in (
                    *_contradictions(row, contents["json"], manifest),
                    *_check_decoded(row, payload, codec),
                ):
                    yield Fault(path.name, row["key"], message)


def _read_sample(stream: IO[bytes], row: Row, codec: PayloadFormat) -> tuple[dict[str, bytes], list[str]]:
    """A sample's files by extension, and what is wrong with the archive around them."""
    contents, wrong = {}, []
    for member in _members(row, codec):
        stream.seek(member.offset - BLOCK)
        intact = stream.read(BLOCK) == header(f"{row['key']}.{member.extension}", member.size)
        contents[member.extension] = stream.read(member.size)
        if not intact or stream.read(-member.size % BLOCK).strip(b"\0"):
            wrong.append(f"the archive's own bytes around {member.extension}")
    return contents, wrong


def _contradictions(row: Row, description: bytes, manifest: Manifest) -> Iterator[str]:
    """Where a row says something else than the sample's JSON or the manifest's classes."""
    try:
        told = json.loads(description)
        times = told["times_seconds"]
        from_json = {
            "label_name": told["label"],
            "video": told["video"],
            "padded_frames": told["padded_frames"],
            "start_seconds": times[0],
            "end_seconds": times[-1],
        }
    except (ValueError, TypeError, LookupError) as error:
        yield f"its JSON can't be read: {error}"
        return
    label = row["label"]
    if label != UNLABELLED and dict(enumerate(manifest.classes)).get(label) != row["label_name"]:
        yield f"label {label} is not {row['label_name']!r} in the manifest"
    for name, value in from_json.items():
        if row[name] != value:
            yield f"{name} is {row[name]!r} in {SAMPLES}, but {value!r} in its JSON"


def _shape(row: Row) -> tuple[int, int, int]:
    return row["frames"], row["height"], row["width"]


def _check_decoded(row: Row, payload: Sequence[bytes], codec: PayloadFormat) -> Iterator[str]:
    try:
        shape = codec.decoded_shape(payload)
    except ValueError as error:
        yield f"can't be decoded: {error}"
        return
    expected = codec.expected_shape(_shape(row))
    if tuple(shape) != expected:
        yield f"decodes to {list(shape)}, but the index says {list(expected)}"


def _check_counts(folder: Path, manifest: Manifest, samples: SamplesFile | None) -> Iterator[Fault]:
    counts = manifest.counts
    if counts.videos != counts.written + counts.rejected:
        text = f"{counts.videos} videos, but {counts.written} written and {counts.rejected} rejected"
        yield Fault(MANIFEST, "", f"the counts don't add up: {text}")
    rejects = folder / REJECTS
    lines = rejects.read_bytes().count(b"\n") if rejects.is_file() else 0
    if lines != counts.rejected:
        yield Fault(REJECTS, "", f"{lines} lines, but the manifest says {counts.rejected} rejected")
    if samples is None:
        return
    keys = samples.read(["key"]).column("key").to_pylist()
    videos = len({video_of(key) for key in keys})
    if videos != counts.written:
        yield Fault(MANIFEST, "", f"{counts.written} videos written, but {SAMPLES} has {videos}")
    if len(keys) != counts.clips:
        yield Fault(MANIFEST, "", f"{counts.clips} clips, but {SAMPLES} has {len(keys)}")
    if len(set(keys)) != len(keys):
        yield Fault(SAMPLES, "", "keys occur more than once")


def _members(row: Row, codec: PayloadFormat) -> list[Member]:
    """All files of a sample, in the order of the archive."""
    payload = place_members(codec.extensions(row["frames"]), row["payload_offset"], row["payload_sizes"])
    small = [Member(name, row[f"{name}_offset"], row[f"{name}_size"]) for name in ("cls", "json")]
    return sorted([*payload, *small], key=lambda member: member.offset)


def _summary(rows: Sequence[Row], codec: PayloadFormat) -> TarSummary:
    return TarSummary(samples=[(row["key"], tuple(_members(row, codec))) for row in rows])
