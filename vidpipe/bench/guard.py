"""Nothing is left behind: ends all processes of a benchmark when its own is gone, however it went.

A frozen process would neither see that its pipe has closed nor end by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.resource_tracker import ensure_running
from typing import Self


class Guard:
    """A process that waits for the end of this one; a context manager. Groups that were added are killed at its end."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe: Connection[int, None]
        theirs: Connection[None, int]
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = context.Process(target=_watch, args=(theirs,), daemon=True)
        with deaf_to_interrupts():  # what all others are forked from begins here, too
            self._process.start()
        theirs.close()

    def add(self, group: int) -> None:
        """Watch over a process group, too."""
        self._pipe.send(group)

    def remove(self, group: int) -> None:
        """Forget a group that has ended, as another process may get its number."""
        self._pipe.send(-group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """What is started within the block never hears of Ctrl-C, which is left to this process."""
    ensure_running()  # multiprocessing's tracker: it would be started within, and then signals be let through again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _watch(pipe: Connection[None, int]) -> None:
    groups: set[int] = set()
    with suppress(EOFError, ConnectionResetError):
        while True:
            group = pipe.recv()
            if group > 0:
                groups.add(group)
            else:
                groups.discard(-group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
