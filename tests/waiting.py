"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until it is true; a minute later it is an error."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)
