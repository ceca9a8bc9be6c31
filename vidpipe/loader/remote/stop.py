"""When threads that wait for something far away give up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from vidpipe.errors import StorageError

T = TypeVar("T")

POLL_SECONDS = 0.05


class Stop:
    """Set by whoever closes a loader; it also counts as set once the interpreter is ending, which waits for its threads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Let all that wait give up."""
        self._event.set()

    def wait(self, seconds: float = 0.0) -> bool:
        """Whether it is set, or becomes so within that time."""
        deadline = time.monotonic() + seconds
        while not _interpreter_ends():
            left = deadline - time.monotonic()
            if self._event.wait(min(max(left, 0.0), POLL_SECONDS)):
                return True
            if left <= 0:
                return False
        return True

    def run(self, what: str, action: Callable[[], T]) -> T:
        """What an action gives that may take as long as it likes: a thread of its own does it, and is left behind once this is set.

        Args:
            what: names it in the error.

        Raises:
            StorageError: this is set. What the action gives from then on is dropped.
        """
        future: Future[T] = Future()
        ended = threading.Event()

        def act() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)
            ended.set()

        if not self.wait():
            threading.Thread(target=act, name="vidpipe-remote", daemon=True).start()
            while not ended.wait(POLL_SECONDS) and not self.wait():
                pass
        if not ended.is_set():
            raise StorageError(f"{what}: the loader was closed while it was read")
        return future.result()


def _interpreter_ends() -> bool:
    # Set before executors' threads are joined; what is public says so only after that.
    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()
