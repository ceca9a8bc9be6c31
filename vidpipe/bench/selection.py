"""Which clips are used: a split, or as many of its first shards as fit comfortably into memory, warmed up."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidpipe.errors import UsageError
from vidpipe.shards.index import read_samples, write_samples
from vidpipe.shards.layout import index_name
from vidpipe.shards.manifest import Manifest, ShardEntry, find_split, load_manifest

DEMO_SHARDS = Path("demo/shards")
DEMO_SOURCE = Path("demo/videos")
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Selection:
    """What all arms read.

    Attributes:
        folder: a split's folder with only these clips.
        source: folder of the videos, if it is known.
        manifest: of `folder`.
        notes: what the reader of the figures has to know about it.
    """

    folder: Path
    source: Path | None
    manifest: Manifest
    notes: tuple[str, ...]


def find_shards(shards: Path | None, source: Path | None) -> tuple[Path, Path | None]:
    """The shards to use and the folder of their videos: the demo's if none are named.

    Raises:
        UsageError: there are none, or there is no such source folder.
    """
    if shards is None:
        shards, source = DEMO_SHARDS, source or DEMO_SOURCE
        if not shards.is_dir() or not source.is_dir():
            raise UsageError(
                f"no {shards if not shards.is_dir() else source} here: run `make demo` first, or name shards and the "
                "videos that they were made from: `vidpipe bench ... DIR --source DIR`, `make ... SHARDS=DIR SOURCE=DIR`"
            )
    if source is not None and not source.is_dir():
        raise UsageError(f"--source {source}: no such folder; expected the one that the shards' videos are in")
    return shards, source


@contextmanager
def select_clips(shards: Path, source: Path | None, *, split: str, max_bytes: int) -> Iterator[Selection]:
    """The clips to use, read once so that they are in the page cache.

    Of a larger split the first shards are taken, through a temporary folder of links that is gone afterwards.

    Raises:
        UsageError: the shards hold no clips.
        ShardError: they are unfinished or damaged.
    """
    folder = find_split(shards, split)
    manifest = clips_manifest(folder)
    source = source.absolute() if source else None
    taken = first_shards(manifest, max_bytes)
    if sum(entry.samples for entry in taken) == manifest.num_samples:
        _warm_up(folder, taken)
        yield Selection(folder.absolute(), source, manifest, ())
        return
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary:
        view = Path(temporary)
        part = link_clips(folder.absolute(), manifest, view, limit=sum(entry.samples for entry in taken))
        _warm_up(view, taken)
        clips = f"{part.num_samples} of {manifest.num_samples} clips"
        yield Selection(view, source, part, (f"the first {len(taken)} of {len(manifest.shards)} shards: {clips}",))


def clips_manifest(folder: Path) -> Manifest:
    """The manifest of a split's folder that holds clips.

    Raises:
        UsageError: it holds none, or features of them.
        ShardError: the shards are unfinished or damaged.
    """
    manifest = load_manifest(folder)
    if manifest.features is not None:
        raise UsageError(f"{folder}: holds features, expected clips: name the shards that these were made from")
    if not manifest.num_samples:
        raise UsageError(f"{folder}: holds no clips; all its videos were rejected, see rejects.jsonl")
    return manifest


def first_shards(manifest: Manifest, max_bytes: int) -> tuple[ShardEntry, ...]:
    """As many of the first shards that hold clips as have no more bytes together, but at least one."""
    taken: list[ShardEntry] = []
    for entry in (entry for entry in manifest.shards if entry.samples):
        if taken and sum(shard.bytes for shard in taken) + entry.bytes > max_bytes:
            break
        taken.append(entry)
    return tuple(taken)


def link_clips(folder: Path, manifest: Manifest, view: Path, *, limit: int) -> Manifest:
    """Make `view` a split's folder that has only the first `limit` clips of another."""
    rows = read_samples(folder).to_pylist()[:limit]
    counts = Counter(row["shard"] for row in rows)
    taken = [entry for entry in manifest.shards if entry.name in counts]
    for entry in taken:
        for name in (entry.name, index_name(entry.name)):
            (view / name).symlink_to(folder / name)
    samples_file = write_samples(view, rows)
    shards = tuple(entry.model_copy(update={"samples": counts[entry.name]}) for entry in taken)
    part = manifest.model_copy(update={"samples_file": samples_file, "shards": shards})
    part.write(view)
    return part


def _warm_up(folder: Path, shards: tuple[ShardEntry, ...]) -> None:
    for entry in shards:
        warm_up(folder / entry.name)


def warm_up(path: Path) -> None:
    """Read a file, so that it is in the page cache."""
    buffer = bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
