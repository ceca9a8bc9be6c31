"""Files that close with their last user, and locks on files that end with the process that took them.

A lock (flock) belongs to what was opened, and a forked child shares that with its parent: while it keeps it open, its parent's
lock holds. So a child closes the locked files of its parent before it does anything else.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_locked: set[int] = set()
# Held while they are opened and closed, so that a fork finds all there are; re-entered where a file that nobody holds is closed
# meanwhile.
_changing = threading.RLock()


class OpenFile:
    """A descriptor that is closed with the last reference to it."""

    descriptor = -1

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Close it now; again does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
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
    with suppress(FileNotFoundError):
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
    """Hold the lock of a folder, waiting for it; it ends with the process, however that ends."""
    with LockedFile(folder, os.O_RDONLY, fcntl.LOCK_EX):
        yield


def _leave_to_parent() -> None:
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()
    _changing.release()


os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_leave_to_parent)
