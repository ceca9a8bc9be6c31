"""Turns: contestants are measured one after the other, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def in_turn(contestants: Sequence[T], number: int) -> list[T]:
    """The order of a round, given its number: each begins with another one, so that none is always the first."""
    first = number % max(1, len(contestants))
    return [*contestants[first:], *contestants[:first]]
