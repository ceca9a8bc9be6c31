"""The split folders that a loader reads: on this machine, or at a URL through the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vidpipe.errors import ShardError, UsageError
from vidpipe.files import OpenFile, folder_lock, whole_file
from vidpipe.loader.reading.open_shards import open_shard_file
from vidpipe.loader.remote.cache import PATIENCE_SECONDS, ShardCache, cache_errors
from vidpipe.loader.remote.folder import RemoteFolder
from vidpipe.loader.remote.stop import Stop
from vidpipe.shards.checksum import file_sha256
from vidpipe.shards.layout import MANIFEST, SAMPLES
from vidpipe.shards.manifest import (
    FileEntry,
    Manifest,
    Normalization,
    find_split,
    load_manifest,
    parse_manifest,
    split_folders,
)

# Linux reads no more for one advice than the device's window, of which this is the usual size.
READ_AHEAD_BYTES = 128 << 10
DEFAULT_SPLIT = "train"

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


def unite_manifests(manifests: Sequence[Manifest], normalization: Normalization | None = None) -> Manifest:
    """The first manifest, with the classes of all, its own first, and a horizontal flip where all of them allow it.

    Args:
        normalization: in place of its own.
    """
    classes = tuple(dict.fromkeys(name for manifest in manifests for name in manifest.classes))
    flip = all(manifest.horizontal_flip for manifest in manifests)
    first = manifests[0]
    chosen = normalization or first.normalization
    return first.model_copy(update={"classes": classes, "horizontal_flip": flip, "normalization": chosen})


def read_manifest(shards: Shards, split: str | None) -> Manifest:
    """What a loader of a split will say about all its data sets; nothing but manifests is read.

    Args:
        split: as `open_split` takes it.

    Raises:
        ShardError: a split is absent, unfinished or can't be read.
        UsageError: there is no folder, or that of another split, or no such kind of URL.
    """
    return unite_manifests([_read_manifest(folder, split) for folder in named_folders(shards)[0]])


def split_names(folder: Folder) -> tuple[str, ...]:
    """The splits in a data-set folder, a path or an fsspec URL; none in a folder that is a split itself.

    Raises:
        ShardError: the folder is absent, or can't be read.
    """
    local = local_folder(folder)
    if local is not None:
        return () if (local / MANIFEST).is_file() else tuple(split_folders(local))
    files = RemoteFolder(os.fspath(folder))
    return () if files.has(MANIFEST) else _remote_splits(files)


def local_folder(folder: Folder) -> Path | None:
    """A folder on this machine, given as a path or as a file:// URL; None for other URLs."""
    name = os.fspath(folder)
    if name.startswith("file://"):
        return Path(name.removeprefix("file://"))
    return None if "://" in name else Path(name)


class Split:
    """One split folder.

    Attributes:
        name: its path or URL.
        folder: on this machine, with at least `manifest.json` and `samples.parquet`.
        entries: its shards, by name.
        remote: whether shards are fetched.

    Args:
        stop: once it is set, whatever waits for shards in other threads ends soon.
    """

    remote = False

    def __init__(self, folder: Path, stop: Stop | None = None, *, name: str | None = None) -> None:
        self.name, self.folder = name or str(folder), folder
        self.manifest = load_manifest(folder)
        self.entries = {entry.name: entry for entry in self.manifest.shards}
        self._stop = stop or Stop()

    def open_shard(self, name: str) -> OpenFile:
        """A shard's file.

        Raises:
            ShardError: it is absent or has another size than the manifest says.
            StorageError: it can't be had at the moment.
        """
        return open_shard_file(self.folder / name, self.entries[name].bytes)

    def is_near(self, name: str) -> bool:
        """Whether a shard is on this machine."""
        return True

    def renew_shard(self, name: str, descriptor: int) -> bool:
        """Whether damage in an open shard is that of a copy, and opening it again gives another one."""
        return False

    def prefetch(self, name: str) -> None:
        """Have a shard near before it is opened; raises as `open_shard`. Of a file, the system is told to read it ahead."""
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        with self.open_shard(name) as file:
            for start in range(0, self.entries[name].bytes, READ_AHEAD_BYTES):
                if self._stop.wait():
                    return
                os.posix_fadvise(file.descriptor, start, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


class RemoteSplit(Split):
    """One split folder at a URL. Its manifest and index are copied to the cache at once, its shards when they are wanted.

    Args:
        cache_dir: the cache's folder.
        max_bytes: of all shards in the cache.
    """

    remote = True

    def __init__(self, files: RemoteFolder, cache_dir: Path, stop: Stop, *, max_bytes: int) -> None:
        self._files = files
        super().__init__(_mirror(files, cache_dir / "splits"), stop, name=files.url)
        self._cache = ShardCache(cache_dir / "shards", max_bytes=max_bytes, stop=stop)

    def open_shard(self, name: str) -> OpenFile:
        """Fetch the shard if it isn't in the cache, and check it."""
        return self._open(name, patience_seconds=PATIENCE_SECONDS)

    def is_near(self, name: str) -> bool:
        """Whether a shard is in the cache."""
        return self._cache.holds(self.entries[name])

    def renew_shard(self, name: str, descriptor: int) -> bool:
        """Compare an open shard in the cache with what it has to be, and remove it if it differs."""
        return self._cache.renew(self.entries[name], descriptor)

    def prefetch(self, name: str) -> None:
        """Fetch the shard if it isn't in the cache and there is room for it."""
        self._open(name, patience_seconds=0).close()

    def _open(self, name: str, *, patience_seconds: float) -> OpenFile:
        entry = self.entries[name]
        return self._cache.open(
            entry,
            lambda descriptor: self._files.copy(entry.name, descriptor, size=entry.bytes, sha256=entry.sha256),
            patience_seconds=patience_seconds,
        )


def open_split(
    folder: Folder, split: str | None, *, cache_dir: Folder | None, max_bytes: int, stop: Stop | None = None
) -> Split:
    """One split of a data-set folder, or a split's own folder: a path or an fsspec URL.

    Args:
        split: its name; None for `train`, or whichever one a split's own folder is.
        cache_dir: of remote shards; by default $VIDPIPE_CACHE, else $XDG_CACHE_HOME/vidpipe, else ~/.cache/vidpipe.
        max_bytes: of all remote shards there.
        stop: as `Split` takes it.

    Raises:
        ShardError: it is absent, unfinished or can't be read.
        UsageError: the folder is another split's own, or there is no such kind of URL.
    """
    stop = stop or Stop()
    place, is_own = _located(folder, split, stop)
    opened = (
        Split(place, stop)
        if isinstance(place, Path)
        else RemoteSplit(place, Path(cache_dir or _default_cache_dir()), stop, max_bytes=max_bytes)
    )
    if is_own:
        _check_split(opened.manifest, split, folder)
    return opened


def _located(folder: Folder, split: str | None, stop: Stop | None = None) -> tuple[Path | RemoteFolder, bool]:
    """Where a split is, as `open_split` takes it, and whether that is the given folder itself."""
    name = split or DEFAULT_SPLIT
    local = local_folder(folder)
    if local is not None:
        found = find_split(local, name)
        return found, found == local
    given = RemoteFolder(os.fspath(folder), stop)
    files = _find_remote_split(given, name)
    return files, files is given


def _check_split(manifest: Manifest, split: str | None, own: Folder) -> None:
    if split not in (None, manifest.split):
        raise UsageError(
            f"split: got {split!r}, but {own} is the split {manifest.split!r} itself; ask for that, or give the data set's folder"
        )


def _default_cache_dir() -> Path:
    if named := os.environ.get("VIDPIPE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidpipe"


def _find_remote_split(files: RemoteFolder, split: str) -> RemoteFolder:
    if files.has(MANIFEST):
        return files
    below = files.below(split)
    if below.has(MANIFEST):
        return below
    there = _remote_splits(files)
    if there:
        raise ShardError(f"{files.url}: no split {split!r}; there are: {', '.join(there)}")
    raise ShardError(
        f"{files.url}: no shards here (no {MANIFEST}, no {split}/{MANIFEST}); upload a folder of `vidpipe prep`"
    )


def _remote_splits(files: RemoteFolder) -> tuple[str, ...]:
    return tuple(name for name in files.folders() if files.below(name).has(MANIFEST))


def _read_manifest(folder: Folder, split: str | None) -> Manifest:
    place, is_own = _located(folder, split)
    if isinstance(place, Path):
        manifest = load_manifest(place)
    else:
        manifest = parse_manifest(place.read(MANIFEST), f"{place.url}/{MANIFEST}")
    if is_own:
        _check_split(manifest, split, folder)
    return manifest


def _mirror(files: RemoteFolder, folder: Path) -> Path:
    """The folder on this machine that has a remote split's manifest and index, named after the manifest's content."""
    manifest = files.read(MANIFEST)
    samples = parse_manifest(manifest, f"{files.url}/{MANIFEST}").samples_file
    mirror = folder / hashlib.sha256(manifest).hexdigest()[:32]
    with cache_errors(folder):
        mirror.mkdir(parents=True, exist_ok=True)
        with folder_lock(mirror):
            if not _is_whole(mirror / SAMPLES, samples):
                with whole_file(mirror / SAMPLES) as stream:
                    files.copy(SAMPLES, stream.fileno(), size=samples.bytes, sha256=samples.sha256)
            if not (mirror / MANIFEST).exists() or (mirror / MANIFEST).read_bytes() != manifest:
                with whole_file(mirror / MANIFEST) as stream:
                    stream.write(manifest)
    return mirror


def _is_whole(path: Path, written: FileEntry) -> bool:
    """Whether a file is there, and is what was written."""
    return path.exists() and path.stat().st_size == written.bytes and file_sha256(path) == written.sha256
