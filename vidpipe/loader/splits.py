"""The split folders that a loader reads: on this machine, or at a URL through the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vidpipe.errors import ShardError, UsageError
from vidpipe.loader.cache import ShardCache, folder_lock
from vidpipe.loader.reader import open_shard_file
from vidpipe.loader.remote import RemoteFolder
from vidpipe.shards.layout import MANIFEST, SAMPLES, whole_file
from vidpipe.shards.manifest import find_split, load_manifest

Folder = str | os.PathLike[str]
Shards = Folder | Sequence[Folder] | Mapping[str, float]


def named_folders(shards: Shards) -> tuple[tuple[Folder, ...], tuple[float, ...] | None]:
    """The folders that a loader is given, and their weights where there are any.

    Raises:
        UsageError: there is no folder, or a weight is not above 0.
    """
    if isinstance(shards, str | os.PathLike):
        return (shards,), None
    folders = tuple(shards)
    weights = tuple(float(weight) for weight in shards.values()) if isinstance(shards, Mapping) else None
    if not folders:
        raise UsageError("shards: got no folder, expected at least one")
    for folder, weight in zip(folders, weights or (), strict=weights is not None):
        if not 0 < weight < float("inf"):
            raise UsageError(f"shards: weight of {folder}: got {weight}, expected more than 0")
    return folders, weights


class Split:
    """One split folder.

    Attributes:
        name: its path or URL.
        folder: on this machine, with at least `manifest.json` and `samples.parquet`.
        entries: its shards, by name.
        remote: whether shards are fetched.
    """

    remote = False

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        self.name, self.folder = name or str(folder), folder
        self.manifest = load_manifest(folder)
        self.entries = {entry.name: entry for entry in self.manifest.shards}

    def open_shard(self, name: str) -> int:
        """A descriptor of a shard's file.

        Raises:
            ShardError: it is absent or has another size than the manifest says.
        """
        return open_shard_file(self.folder / name, self.entries[name].bytes)

    def prefetch(self, name: str) -> None:
        """Have a shard near before it is opened; raises as `open_shard`. Of a file, the system is told to read it ahead."""
        descriptor = self.open_shard(name)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let whatever waits for shards in other threads end soon. On a file system, nothing does."""


class RemoteSplit(Split):
    """One split folder at a URL. Its manifest and index are copied to the cache at once, its shards when they are wanted.

    Args:
        cache_dir: the cache's folder.
        max_bytes: of all shards in the cache.
    """

    remote = True

    def __init__(self, files: RemoteFolder, cache_dir: Path, *, max_bytes: int) -> None:
        self._files = files
        super().__init__(_mirror(files, cache_dir / "splits"), name=files.url)
        self._cache = ShardCache(cache_dir / "shards", max_bytes=max_bytes)

    def open_shard(self, name: str) -> int:
        """Fetch the shard if it isn't in the cache, and check it."""
        return self._open(name, patience_seconds=60)

    def prefetch(self, name: str) -> None:
        """Fetch the shard if it isn't in the cache and there is room for it."""
        os.close(self._open(name, patience_seconds=0))

    def close(self) -> None:
        """Let fetching end soon."""
        self._files.close()
        self._cache.close()

    def _open(self, name: str, *, patience_seconds: float) -> int:
        entry = self.entries[name]
        return self._cache.open(
            entry,
            lambda descriptor: self._files.copy(entry.name, descriptor, size=entry.bytes, sha256=entry.sha256),
            patience_seconds=patience_seconds,
        )


def open_split(folder: Folder, split: str, *, cache_dir: Path, max_bytes: int) -> Split:
    """One split of a data-set folder, or a split's own folder: a path or an fsspec URL.

    Raises:
        ShardError: it is absent, unfinished or can't be read.
    """
    name = os.fspath(folder)
    if "://" not in name:
        return Split(find_split(Path(name), split))
    if name.startswith("file://"):
        return Split(find_split(Path(name.removeprefix("file://")), split))
    return RemoteSplit(_find_remote_split(RemoteFolder(name), split), cache_dir, max_bytes=max_bytes)


def default_cache_dir() -> Path:
    """$VIDPIPE_CACHE, or vidpipe in the user's folder for caches."""
    if named := os.environ.get("VIDPIPE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidpipe"


def _find_remote_split(files: RemoteFolder, split: str) -> RemoteFolder:
    if files.has(MANIFEST):
        return files
    below = files.below(split)
    if below.has(MANIFEST):
        return below
    there = [name for name in files.folders() if files.below(name).has(MANIFEST)]
    if there:
        raise ShardError(f"{files.url}: no split {split!r}; there are: {', '.join(there)}")
    raise ShardError(
        f"{files.url}: no shards here (no {MANIFEST}, no {split}/{MANIFEST}); upload a folder of `vidpipe prep`"
    )


def _mirror(files: RemoteFolder, folder: Path) -> Path:
    """The folder on this machine that has a remote split's manifest and index, named after the manifest's content."""
    manifest = files.read(MANIFEST)
    mirror = folder / hashlib.sha256(manifest).hexdigest()[:32]
    mirror.mkdir(parents=True, exist_ok=True)
    with folder_lock(mirror):
        if not (mirror / SAMPLES).exists():
            with whole_file(mirror / SAMPLES) as stream:
                files.copy(SAMPLES, stream.fileno())
        if not (mirror / MANIFEST).exists():
            with whole_file(mirror / MANIFEST) as stream:
                stream.write(manifest)
    return mirror
