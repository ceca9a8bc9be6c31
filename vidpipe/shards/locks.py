"""Locks between runs, which may be on several machines: of shards, of finishing, and the register of runs at an output folder.

They are `flock`s, so they go with the process that holds them, however it ends. A lock's file is removed only by a run that is
alone at the output folder (see `present`).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from vidpipe.errors import ShardError
from vidpipe.files import LockedFile, open_locked
from vidpipe.shards.layout import PARTS_FOLDER

_GUARD = "guard"
_RUNS = "runs"
# To make a folder, which the last run may have removed just now; a link on the way that leads nowhere stays.
_TRIES = 1000


@contextmanager
def locked(folder: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock `name` of an output folder or of a split's against all other processes.

    Args:
        wait: for another holder to let go of it.

    Yields:
        whether it is held; False only without `wait`.
    """
    file = _lock(folder, name, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    with file or nullcontext():
        yield file is not None


@contextmanager
def present(out: Path, plan: str, *, clean: Callable[[], None] | None = None) -> Iterator[None]:
    """Be one of the runs at an output folder, all of which work by one plan. When none is left, the next may have another.

    `OUT/.parts/runs.lock` holds the plan's hash; each run has a shared lock on it as long as it lives.

    Args:
        plan: hash of everything that decides what comes to be in the folder.
        clean: called at the end if no other run is there; none can come meanwhile.

    Raises:
        ShardError: a run with another plan is at it, or the folder can't be written to or locked.
    """
    try:
        with locked(out, _GUARD, wait=True):
            place = _enter(out, plan)
    except OSError as error:
        raise ShardError(
            f"{out}: can't be used: {error.strerror}; name a folder that can be written to, with some room, on a file system "
            "that has locks (flock)"
        ) from error
    try:
        yield
    finally:
        with locked(out, _GUARD, wait=True), place:
            if clean is not None and _is_alone(place.descriptor):
                clean()
                _remove_locks(out)
        with suppress(OSError):  # others may have come; only now are all its files closed, which NFS wants
            (out / PARTS_FOLDER).rmdir()


def _enter(out: Path, plan: str) -> LockedFile:
    """Take a place; the guard is held."""
    first = _lock(out, _RUNS, fcntl.LOCK_EX | fcntl.LOCK_NB)
    place = first or _lock(out, _RUNS, fcntl.LOCK_SH)
    assert place is not None
    with ExitStack() as stack:
        stack.enter_context(place)
        if first is not None:
            os.pwrite(place.descriptor, plan.encode("ascii"), 0)
            os.fsync(place.descriptor)
            fcntl.flock(place.descriptor, fcntl.LOCK_SH)
        elif os.pread(place.descriptor, len(plan) + 1, 0) != plan.encode("ascii"):
            raise ShardError(
                f"{out}: another run is at work there, with other videos, weights or options; wait for its end or stop it, "
                "choose another --out, or give the options that it was given"
            )
        stack.pop_all()
    return place


def _is_alone(descriptor: int) -> bool:
    """Whether no other run is present; the guard is held, so none can come. The place is lost, whatever the answer."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_locks(out: Path) -> None:
    """Remove the files of locks. The guard's goes last: whoever holds it under its name may come in."""
    folder = out / PARTS_FOLDER
    guard = _path(out, _GUARD)
    for path in folder.iterdir():
        if path != guard:
            path.unlink()
    guard.unlink()


def _lock(folder: Path, name: str, operation: int) -> LockedFile | None:
    """The lock's file, locked; None if another holds it and `operation` doesn't wait."""
    path = _path(folder, name)
    tries = 0
    while True:
        try:
            _make_folder(path.parent)
            file = open_locked(path, os.O_RDWR | os.O_CREAT, operation)
        except BlockingIOError:
            return None
        except FileNotFoundError:
            tries += 1
            if tries == _TRIES:
                raise
            continue
        if file is not None:
            return file


def _make_folder(folder: Path) -> None:
    """As `Path.mkdir` does it, which takes a folder that is removed while it looks for something else of that name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if folder.exists() and not folder.is_dir():
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder)) from None


def _path(folder: Path, name: str) -> Path:
    return folder / PARTS_FOLDER / f"{name}.lock"
