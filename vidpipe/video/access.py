"""Whether a video's file can be read, and whose fault it is when it can't: the file's own, or that of the machine and its storage."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vidpipe.errors import VideoError

# What no file is to blame for: the machine has run out of something, or the storage doesn't answer.
_MACHINES_OWN = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT),
        *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
        *(errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENODEV),
    }
)
_READ_BYTES = 1 << 20


def check_file(path: str | os.PathLike[str]) -> None:
    """See that the file is there and can be opened.

    Raises:
        VideoError: stage `find`, reason `missing`, `unreadable` or `empty`.
        OSError: the machine or its storage is at fault.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("unreadable", "this is not a regular file", stage="find")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise _verdict(error, path) from error
    if status.st_size == 0:
        raise VideoError("empty", "the file has zero bytes", stage="find")


@contextlib.contextmanager
def judging(path: str | os.PathLike[str]) -> Iterator[None]:
    """What is found wrong with a video in the block stands only if all of its file can be read: libav calls what it can't read damaged.

    Raises:
        VideoError: that of the block, or else stage `find`, reason `missing` or `unreadable`.
        OSError: that of the block, or else the machine or its storage is at fault.
    """
    try:
        yield
    except (VideoError, OSError) as error:
        if not (isinstance(error, VideoError) and error.stage == "find"):
            _read_through(path)
        raise


def _read_through(path: str | os.PathLike[str]) -> None:
    buffer = bytearray(_READ_BYTES)
    try:
        with Path(path).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    except OSError as error:
        raise _verdict(error, path) from error


def _verdict(error: OSError, path: str | os.PathLike[str]) -> VideoError | OSError:
    if error.errno in _MACHINES_OWN:
        return OSError(error.errno, error.strerror, os.fspath(path))
    if isinstance(error, FileNotFoundError):
        return VideoError("missing", "there is no such file", stage="find")
    return VideoError("unreadable", f"the file can't be read: {error.strerror}", stage="find")


def why_folder_is_gone(path: str | os.PathLike[str]) -> str:
    """What is wrong with the folders that held the file `path`, and what it links to; empty when others can be found in them."""
    for folder in {Path(path).parent, Path(os.path.realpath(path)).parent}:
        try:
            with os.scandir(folder) as entries:
                if next(entries, None) is None:
                    return f"{folder} is empty now"
        except OSError as error:
            return f"{folder} can't be listed any more: {error.strerror}"
    return ""
