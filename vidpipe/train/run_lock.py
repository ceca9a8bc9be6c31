"""A run folder is one run's at a time: a second one would remove the first one's checkpoints and write over its log."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidpipe.errors import UsageError
from vidpipe.files import LockedFile, open_locked
from vidpipe.train.stop import StopRequest

LOCK = "run.lock"
# A run that was told to end may be saving yet, and a file server takes some 90 s to find that a machine is gone.
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.2
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def only_run(out: Path, *, stop: StopRequest, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only run in a run folder, which is made; `run.lock` in it is locked meanwhile, and gone afterwards.

    Where the file system has no locks, that is said, and nothing keeps another run out.

    Args:
        stop: once it is requested, another run's end isn't waited for.
        say: prints a sentence.

    Raises:
        UsageError: another run is there, and doesn't end within `PATIENCE_SECONDS`.
    """
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        file = _locked(out, stop, say)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(
            f"{out}: its file system has no locks (flock), so that nothing keeps a second run out of it: see to that yourself"
        )
        file = None
    try:
        yield
    finally:
        if file is not None:
            with file:
                (out / LOCK).unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # nothing came of the run, else it isn't empty
                out.rmdir()


def _locked(out: Path, stop: StopRequest, say: Callable[[str], None]) -> LockedFile:
    deadline = time.monotonic() + PATIENCE_SECONDS
    is_told = False
    while True:
        try:
            file = open_locked(out / LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stop.signal is not None or time.monotonic() > deadline:
                raise UsageError(
                    f"{out}: another run is at work in this folder; stop it or wait for its end, or choose another --out"
                ) from None
            if not is_told:
                say(f"{out}: another run is at work in this folder; waiting up to {PATIENCE_SECONDS:g} s for its end")
                is_told = True
            time.sleep(_POLL_SECONDS)
            continue
        if file is not None:
            return file
