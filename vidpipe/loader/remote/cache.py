"""Shards from far away in a folder on this machine: bounded, and shared by all its processes.

A shard's file is named after its SHA-256, so data sets, versions and runs never take one for another. A file that is used is
held by a shared lock, one that is being fetched by an exclusive one; a lock ends with its process, however that ends, and no
fork of that process keeps it.

The folder may be on a network file system (homes often are), where each machine remembers for a while which names there are.
So nothing is concluded from a name but what may be wrong: a shard is fetched twice then, into a file of its own each time, and
whichever comes last takes the place; no file is written to that ever had a shard's name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidpipe.errors import ShardError, StorageError
from vidpipe.files import LockedFile, folder_lock, open_locked, unless_gone
from vidpipe.loader.remote.stop import POLL_SECONDS, Stop
from vidpipe.shards.manifest import ShardEntry

PATIENCE_SECONDS = 60.0
_WHOLE, _PART, _TURN = ".tar", ".part", ".lock"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_HASHED_BYTES = 1 << 20

logger = logging.getLogger("vidpipe.loader")


class ShardCache:
    """Any number of threads and processes may use one folder at once.

    Args:
        folder: is made where it doesn't exist.
        max_bytes: of all shards in it together; what was used longest ago goes first, and never what is in use.
        stop: once it is set, all that waits ends with an error.
    """

    def __init__(self, folder: Path, *, max_bytes: int, stop: Stop | None = None) -> None:
        self._folder, self._max_bytes, self._stop = folder, max_bytes, stop or Stop()
        with cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def open(
        self, entry: ShardEntry, fetch: Callable[[int], None], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> LockedFile:
        """A shard's file, which is fetched where it isn't there and stays there until what is given is closed.

        Args:
            fetch: writes the shard to a descriptor, or raises.
            patience_seconds: how long to wait for room while all that is there is in use.

        Raises:
            StorageError: there is no room, the folder can't be used, or it was stopped in the meantime.
        """
        path = self._path(entry)
        with cache_errors(self._folder):
            while True:
                file = open_locked(path, os.O_RDONLY, fcntl.LOCK_SH)
                if file is None:
                    self._fetch(path, entry, fetch, patience_seconds)
                    continue
                with unless_gone():  # another machine may have removed it just before it was locked
                    if os.fstat(file.descriptor).st_size == entry.bytes:
                        # Not the system's own stamp, which is that of its last tick, several milliseconds ago.
                        used = time.time_ns()
                        os.utime(file.descriptor, ns=(used, used))
                        return file
                    self._remove_damaged(path, file.descriptor)
                file.close()

    def holds(self, entry: ShardEntry) -> bool:
        """Whether a shard is there at the moment."""
        return self._path(entry).exists()

    def renew(self, entry: ShardEntry, descriptor: int) -> bool:
        """Whether a shard's open file isn't what was fetched; then `open` gives another one.

        Raises:
            StorageError: the folder can't be used.
        """
        if _sha256(descriptor) == entry.sha256:
            return False
        with cache_errors(self._folder):
            self._remove_damaged(self._path(entry), descriptor)
        return True

    def _path(self, entry: ShardEntry) -> Path:
        return self._folder / f"{entry.sha256}{_WHOLE}"

    def _remove_damaged(self, path: Path, descriptor: int) -> None:
        """Remove a file, unless another process has put a new one in its place."""
        with folder_lock(self._folder), unless_gone():
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
                logger.warning("%s: not what was fetched (a damaged disk?): removed, to be fetched again", path)

    def _fetch(self, path: Path, entry: ShardEntry, fetch: Callable[[int], None], patience_seconds: float) -> None:
        """Put a shard in place, or wait for whoever does; it may be gone again, or not be seen yet, when this returns."""
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have cleared the cache
        name = path.with_suffix(_TURN)
        turn = self._wait_for_turn(name)
        if turn is None:
            return
        with turn:
            try:
                if not path.exists():  # else whoever had the turn before has brought it
                    self._bring(path, entry, fetch, patience_seconds)
            finally:
                name.unlink(missing_ok=True)

    def _wait_for_turn(self, name: Path) -> LockedFile | None:
        """The lock of fetching a shard; None if whoever had it has let go of it just now."""
        while True:
            with suppress(BlockingIOError):
                return open_locked(name, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._pause()

    def _bring(self, path: Path, entry: ShardEntry, fetch: Callable[[int], None], patience_seconds: float) -> None:
        part = path.with_suffix(f".{uuid.uuid4().hex}{_PART}")
        file = open_locked(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, fcntl.LOCK_EX)
        if file is None:  # taken for what an ended process left
            return
        with file:
            try:
                self._reserve(file.descriptor, entry.bytes, patience_seconds)
                fetch(file.descriptor)
                os.fsync(file.descriptor)
                # Whoever makes room counts every shard, under one name or the other.
                with unless_gone(), folder_lock(self._folder):
                    part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _reserve(self, descriptor: int, size: int, patience_seconds: float) -> None:
        """Give a new file its size, as soon as there is room for it."""
        deadline = time.monotonic() + patience_seconds
        while True:
            with folder_lock(self._folder):
                if self._make_room(descriptor, size):
                    return
            if time.monotonic() > deadline:
                free = shutil.disk_usage(self._folder).free
                raise StorageError(
                    f"{self._folder}: no room for {size / 1e6:.0f} MB within cache_gb ({self._max_bytes / 1e9:g} GB) and the disk "
                    f"({free / 1e9:.2f} GB free): all shards there are in use, by this or other processes; raise cache_gb, or "
                    "take another cache_dir"
                )
            self._pause()

    def _pause(self) -> None:
        if self._stop.wait(POLL_SECONDS):
            raise StorageError(f"{self._folder}: the loader was closed while a shard was fetched")

    def _make_room(self, descriptor: int, size: int) -> bool:
        """Remove what an ended process left half fetched, then the least recently used, until a file can have `size` bytes."""
        for suffix in (_PART, _TURN):
            for path in self._folder.glob(f"*{suffix}"):
                _remove_unused(path)
        files = sorted(_sizes(self._folder.iterdir()), key=lambda file: file[0])
        used = sum(bytes_ for _, bytes_, _ in files)
        for _, bytes_, path in files:
            if used + size <= self._max_bytes and _allocated(descriptor, size):
                return True
            if path.suffix == _WHOLE and _remove_unused(path):
                used -= bytes_
        return used + size <= self._max_bytes and _allocated(descriptor, size)


class Prefetcher:
    """Threads that bring shards near before they are wanted: into the cache or, of shards on this machine, the system's page cache.

    Args:
        fetch: brings one, by its number; is also asked for those that may be near already.
    """

    def __init__(self, fetch: Callable[[int], None], *, threads: int) -> None:
        self._fetch = fetch
        self._wanted: deque[int] = deque()
        self._asked: tuple[int, ...] = ()
        self._fetching: set[int] = set()
        self._changed = threading.Condition()
        self._closed = False
        # Daemons, so that a loader that nobody closed doesn't keep the interpreter until a download has ended.
        self._threads = [threading.Thread(target=self._run, name="vidpipe-fetch", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def want(self, shards: Iterable[int]) -> None:
        """Bring these next, in this order, instead of what was wanted before."""
        asked = tuple(shards)
        if asked == self._asked:
            return
        with self._changed:
            self._asked = asked
            self._wanted = deque(shard for shard in dict.fromkeys(asked) if shard not in self._fetching)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the threads end, once what they are fetching has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, so long at most: one may be waiting for the disk, and then ends by itself."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._wanted and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                shard = self._wanted.popleft()
                self._fetching.add(shard)
            with suppress(ShardError, OSError):  # whoever reads the shard meets the same, and reports it
                self._fetch(shard)
            with self._changed:
                self._fetching.remove(shard)


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn what the system says about the cache into a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: shards can't be kept there: {error.strerror or error}; see to that, or name another cache_dir"
        ) from error


def _allocated(descriptor: int, size: int) -> bool:
    """Give an empty file its size and its place on the disk; False if that is full."""
    try:
        if hasattr(os, "posix_fallocate"):  # macOS has none; there, a full disk is found while fetching
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        os.ftruncate(descriptor, 0)
        return False
    return True


def _sha256(descriptor: int) -> str | None:
    """Of a file's content, in hexadecimal; None if it can't be read. Any number of threads may ask at once."""
    digest, offset = hashlib.sha256(), 0
    with suppress(OSError):
        while piece := os.pread(descriptor, _HASHED_BYTES, offset):
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()
    return None


def _remove_unused(path: Path) -> bool:
    """Remove a file that nobody holds; whether it is gone, by this or another process."""
    try:
        file = open_locked(path, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)  # NFS locks only what may be written
    except BlockingIOError:
        return False
    if file is not None:
        with file:
            path.unlink(missing_ok=True)
    return True


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[int, int, Path]]:
    """Time of last use in nanoseconds, bytes, and path of those files that are still there."""
    for path in paths:
        with unless_gone():
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path
