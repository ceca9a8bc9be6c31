"""What a benchmark says while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str], None]


def to_stderr(line: str) -> None:
    """A line that nobody takes for a result."""
    print(f"bench: {line}", file=sys.stderr)
