"""Files that are written whole or not at all, that close with their last user, and locks that end with the process that took them.

A lock (flock) belongs to what was opened, and a forked child shares that with its parent: while it keeps it open, its parent's
lock holds. So a child closes the locked files of its parent before it does anything else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".tmp"
FOLDER_LOCK = "lock"
_BUFFER_BYTES = 1 << 16

_locked: set[int] = set()
# Held while they are opened and closed, so that a fork finds all there are; re-entered where a file that nobody holds is closed
# meanwhile.
_changing = threading.RLock()


@contextmanager
def whole_file(path: Path, *, is_huge: bool = False) -> Iterator[IO[bytes]]:
    """A file that appears under its name whole or not at all: temporary name, fsync, rename.

    Leaving the block by an exception removes the temporary file and leaves whatever `path` was before.

    Args:
        is_huge: let go of its pages once they are on disk: terabytes of what isn't read soon would push out what is, and pages
            that are free already are written to in half the time.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        # With a buffer, since a plain file's `write` takes no more than there is room for, and doesn't say so.
        with temporary.open("wb", buffering=_BUFFER_BYTES) as stream:
            yield stream
            sync_file(stream)
            if is_huge and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_file(stream: IO[bytes]) -> None:
    """Have on the disk what was written so far."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class unless_gone:  # noqa: N801 - as contextlib's
    """Pass over it that a file isn't there, or that another machine has removed what is open here (ESTALE of network file systems).

    No generator, whose error would hold on to its own frame, and by that to those of its callers and to files that they have
    open, until garbage is collected.
    """

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> bool:
        return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)


class OpenFile:
    """A descriptor that is closed with the last reference to it."""

    descriptor = -1

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Close it now; again does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with unless_gone():
                os.close(descriptor)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class LockedFile(OpenFile):
    """A file that is locked as long as it is open, in this process and not in its forks.

    Args:
        flags: of `os.open`.
        lock: operation of `fcntl.flock`.

    Raises:
        OSError: it can't be opened; BlockingIOError where the lock isn't to be had and isn't to be waited for.
    """

    def __init__(self, path: Path, flags: int, lock: int) -> None:
        self._process = os.getpid()
        with _changing:
            super().__init__(os.open(path, flags | os.O_CLOEXEC, 0o644))
            _locked.add(self.descriptor)
        try:
            fcntl.flock(self.descriptor, lock)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close and unlock it now; again, or in a fork, does nothing."""
        if self.descriptor < 0 or os.getpid() != self._process:
            return
        with _changing:
            _locked.discard(self.descriptor)
            super().close()


def open_locked(path: Path, flags: int, lock: int) -> LockedFile | None:
    """A locked file; None if there is no such file, or none any more once the lock was had."""
    with unless_gone():
        file = LockedFile(path, flags, lock)
        try:
            if os.path.samestat(os.fstat(file.descriptor), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
    return None


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, waiting for it; it ends with the process, however that ends.

    It is of a file in there, `lock`, which stays: NFS locks folders for each machine alone, and only files that may be written.
    """
    with LockedFile(folder / FOLDER_LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
        yield


def _leave_to_parent() -> None:
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()
    _changing.release()


os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_leave_to_parent)
