"""Files of a data set at an fsspec URL: read in pieces, each again when it fails, and checked.

Nobody can end a read under way, so each is done in a thread of its own, which gives back bytes and knows nothing of the
loader: one that is closed, or a program that ends, leaves it behind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from vidpipe.errors import MissingExtraError, ShardError, StorageError, UsageError
from vidpipe.loader.remote.stop import Stop

PIECE_BYTES = 16 << 20
ATTEMPTS = 8  # with pauses of 0.2, 0.4, ... 12.8 s between them, 25 s in all
FIRST_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class RemoteFolder:
    """A folder at a URL. Any number of threads may read at once.

    Args:
        url: of any file system that fsspec knows, such as s3://bucket/kinetics400. Credentials and endpoints come from where
            that file system takes them by itself: its own variables and files, or fsspec's configuration.
        stop: once it is set, all reads end soon with an error.

    Raises:
        UsageError: there is no such kind of URL.
        MissingExtraError: the package for this kind of URL isn't installed.
    """

    def __init__(self, url: str, stop: Stop | None = None) -> None:
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        self._stop = stop or Stop()
        try:
            self._files, self._root = url_to_fs(self.url)
        except ImportError as error:
            raise MissingExtraError(f"{url}: {error}") from error
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from error

    def below(self, name: str) -> RemoteFolder:
        """A folder in this one."""
        return RemoteFolder(f"{self.url}/{name}", self._stop)

    def has(self, name: str) -> bool:
        """Whether there is such a file.

        Raises:
            StorageError: it can't be found out.
        """
        return bool(self._retried(name, lambda: self._files.exists(self._path(name))))

    def folders(self) -> list[str]:
        """Names of the folders in this one; none where it doesn't exist.

        Raises:
            StorageError: it can't be listed.
        """
        try:
            entries: list[dict[str, Any]] = self._retried("", lambda: self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")

    def read(self, name: str) -> bytes:
        """A whole small file.

        Raises:
            ShardError: it is absent.
            StorageError: it can't be read.
        """
        content: bytes = self._found(name, lambda: self._files.cat_file(self._path(name)))
        return content

    def copy(self, name: str, descriptor: int, *, size: int, sha256: str) -> None:
        """Write a large file's content to a descriptor, from its beginning.

        Raises:
            ShardError: it is absent, or is not of this size or SHA-256, not even the second time.
            StorageError: it can't be read.
        """
        path = self._path(name)
        found: int = self._found(name, lambda: self._files.size(path))
        if found != size:
            raise ShardError(f"{self.url}/{name}: {found} bytes, but the manifest says {size}: truncated or replaced")
        for _ in range(2):
            digest = hashlib.sha256()
            for start in range(0, size, PIECE_BYTES):
                piece = self._found(name, partial(self._piece, path, start, min(size, start + PIECE_BYTES)))
                digest.update(piece)
                _write(descriptor, memoryview(piece), start)
            if digest.hexdigest() == sha256:
                return
        raise ShardError(f"{self.url}/{name}: its content has another SHA-256 than the manifest says; upload it again")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _piece(self, path: str, start: int, end: int) -> bytes:
        piece: bytes = self._files.cat_file(path, start=start, end=end)
        if len(piece) != end - start:
            raise OSError(f"got {len(piece)} of {end - start} bytes")
        return piece

    def _found(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self._retried(name, action)
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.url}/{name}: missing; upload the whole folder that `vidpipe prep` wrote"
            ) from error

    def _retried(self, name: str, action: Callable[[], T]) -> T:
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._stop.run(f"{self.url}/{name}", action)
            except (FileNotFoundError, StorageError):
                raise
            except Exception as error:  # each file system has its own, and those of its network library
                final = isinstance(error, PermissionError | NotImplementedError)
                if final or attempt == ATTEMPTS:
                    times = "" if final else f", {ATTEMPTS} times"
                    raise StorageError(
                        f"{self.url}/{name}: can't be read{times}: {type(error).__name__}: {error}"
                    ) from error
            self._stop.wait(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done
