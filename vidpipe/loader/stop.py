"""When threads that wait for something far away give up."""

from __future__ import annotations

import threading
import time

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


def _interpreter_ends() -> bool:
    # Set before executors' threads are joined; what is public says so only after that.
    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()
