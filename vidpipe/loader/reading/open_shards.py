"""The shards that are open: so few that other files can be opened too, and the last ones used."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from vidpipe.errors import BadSampleError, ShardError, StorageError
from vidpipe.files import OpenFile
from vidpipe.shards.manifest import Manifest

MAX_OPEN_SHARDS = 256
_OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EIO)  # others say nothing about the shard
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)

ShardOpener = Callable[[str], OpenFile]


def open_shards_allowed() -> int:
    """Shards that one loader keeps open: a quarter of the files that this process may open, 256 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_SHARDS if soft == resource.RLIM_INFINITY else max(1, min(MAX_OPEN_SHARDS, soft // 4))


def open_shard_file(path: Path, expected_bytes: int) -> OpenFile:
    """A shard's file.

    Raises:
        ShardError: it is missing or may not be read, or has another size than expected.
        StorageError: it can't be opened for a reason that isn't the file's.
    """
    try:
        file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        message = f"{path}: can't be opened: {error.strerror}"
        if error.errno in _OF_THE_FILE:
            raise ShardError(f"{message}; `vidpipe verify` tells what else is amiss") from error
        hint = "; allow more (`ulimit -n`)" if error.errno in _TOO_MANY_OPEN else ""
        raise StorageError(f"{message}{hint}") from error
    size = os.fstat(file.descriptor).st_size
    if size != expected_bytes:
        file.close()
        raise ShardError(f"{path}: {size} bytes, but the manifest says {expected_bytes}: truncated or replaced")
    return file


def shards_in(folder: Path, manifest: Manifest) -> ShardOpener:
    """What opens a split's shards by name where they lie in its folder; raises as `open_shard_file`."""
    sizes = {entry.name: entry.bytes for entry in manifest.shards}
    return lambda name: open_shard_file(folder / name, sizes[name])


def read_error(shard: str, key: str, error: OSError) -> ShardError:
    """What the system says about reading a sample: of that sample, or of storage, which may serve another time."""
    message = f"can't be read: {error.strerror}"
    return BadSampleError(shard, key, message) if error.errno in _OF_THE_FILE else StorageError(f"{shard}: {message}")


def is_stale(error: StorageError) -> bool:
    """Whether a network file system has lost what is open: its server has begun anew, or another machine has replaced the file."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ESTALE


class OpenShards:
    """Any number of threads may ask; a file that is let go closes once nobody reads it any more.

    Args:
        open_shard: gives a shard's file, by its name.
        most: that are kept open.
    """

    def __init__(self, open_shard: ShardOpener, *, most: int) -> None:
        self._open_shard, self._most = open_shard, most
        self._open: OrderedDict[str, OpenFile] = OrderedDict()  # the one used last stands last
        self._lock = threading.Lock()

    def __getitem__(self, shard: str) -> OpenFile:
        """A shard's file; raises what opening it does."""
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            self._leave(self._most - 1)
        # Not under the lock: a shard that is fetched from far away mustn't hold up those that are here.
        opened = self._opened(shard)
        with self._lock:
            file = self._open.setdefault(shard, opened)
            self._open.move_to_end(shard)
            self._leave(self._most)  # others were opened meanwhile, and would stay in a full cache
            return file

    def forget(self, shard: str, file: OpenFile) -> None:
        """Open a shard anew when it is asked for next, unless that has happened since it was this file."""
        with self._lock:
            if self._open.get(shard) is file:
                del self._open[shard]

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            self._open.clear()

    def _leave(self, number: int) -> None:
        while len(self._open) > number:
            self._open.popitem(last=False)

    def _opened(self, shard: str) -> OpenFile:
        """Open a shard, closing others for it where too many files are open."""
        while True:
            try:
                return self._open_shard(shard)
            except StorageError as error:
                with self._lock:
                    if not (self._open and _is_of_open_files(error)):
                        raise
                    self._open.popitem(last=False)


def _is_of_open_files(error: StorageError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _TOO_MANY_OPEN
