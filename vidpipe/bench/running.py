"""What the runs of all benchmarks share: options that are checked, what is said meanwhile, whose turn it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vidpipe.errors import UsageError

Progress = Callable[[str], None]

T = TypeVar("T")


def check_options(options: Any, benchmark: str, *positive: str) -> None:
    """Refuse a value that isn't above 0, and an `out` that nothing can be written to when all is measured.

    Args:
        benchmark: its command, for the message.
        positive: attributes; None is a default.

    Raises:
        UsageError: one is not.
    """
    for name in positive:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UsageError(f"bench {benchmark}: {name}: got {value}, expected more than 0")
    out = options.out.absolute()
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"bench {benchmark}: out: got {options.out}, but {there} is no folder that can be written to")


def to_stderr(line: str) -> None:
    """Progress as a line that nobody takes for a result."""
    print(f"bench: {line}", file=sys.stderr)


def in_turn(contestants: Sequence[T], number: int) -> list[T]:
    """The order of a round, given its number: each begins with another contestant, so that none is always the first."""
    first = number % max(1, len(contestants))
    return [*contestants[first:], *contestants[:first]]
