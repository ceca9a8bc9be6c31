"""Which clips are used: a split, or as many of its first shards as fit comfortably into memory, warmed up."""

from __future__ import annotations

import tempfile
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


@contextmanager
def select_clips(shards: Path | None, source: Path | None, *, split: str, max_bytes: int) -> Iterator[Selection]:
    """The clips to use, read once so that they are in the page cache; the demo's if none are named.

    Of a larger split the first shards are taken, through a temporary folder of links that is gone afterwards.

    Raises:
        UsageError: there are no shards or no such source folder.
        ShardError: the shards are unfinished or damaged.
    """
    if shards is None:
        shards, source = DEMO_SHARDS, source or DEMO_SOURCE
        if not shards.is_dir() or not source.is_dir():
            raise UsageError(
                f"no {shards if not shards.is_dir() else source} here: run `make demo` first, or name shards and the "
                "videos that they were made from: `make benchmark-loader SHARDS=DIR SOURCE=DIR`, "
                "`vidpipe bench loader DIR --source DIR`"
            )
    if source is not None and not source.is_dir():
        raise UsageError(f"--source {source}: no such folder; expected the one that the shards' videos are in")
    folder = find_split(shards, split)
    manifest = load_manifest(folder)
    source = source.absolute() if source else None
    taken = _first_shards(manifest, max_bytes)
    if not manifest.num_samples:
        raise UsageError(f"{folder}: holds no clips; all its videos were rejected, see rejects.jsonl")
    if len(taken) == len(manifest.shards):
        _warm_up(folder, taken)
        yield Selection(folder.absolute(), source, manifest, ())
        return
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary:
        view = Path(temporary)
        part = _link(folder.absolute(), manifest, taken, view)
        _warm_up(view, taken)
        clips = f"{part.num_samples} of {manifest.num_samples} clips"
        yield Selection(view, source, part, (f"the first {len(taken)} of {len(manifest.shards)} shards: {clips}",))


def _first_shards(manifest: Manifest, max_bytes: int) -> tuple[ShardEntry, ...]:
    taken: list[ShardEntry] = []
    for entry in manifest.shards:
        if taken and sum(shard.bytes for shard in taken) + entry.bytes > max_bytes:
            break
        taken.append(entry)
    return tuple(taken)


def _link(folder: Path, manifest: Manifest, taken: tuple[ShardEntry, ...], view: Path) -> Manifest:
    """A split's folder in `view` that has only some of the shards."""
    for entry in taken:
        for name in (entry.name, index_name(entry.name)):
            (view / name).symlink_to(folder / name)
    names = {entry.name for entry in taken}
    write_samples(view, [row for row in read_samples(folder).to_pylist() if row["shard"] in names])
    part = manifest.model_copy(update={"shards": taken})
    part.write(view)
    return part


def _warm_up(folder: Path, shards: tuple[ShardEntry, ...]) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    for entry in shards:
        with (folder / entry.name).open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
