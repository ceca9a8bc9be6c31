"""What arguments and options may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vidpipe.errors import UsageError


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what isn't among the values that an argument may have.

    Raises:
        UsageError: the message names them.
    """
    if value not in allowed:
        raise UsageError(f"{name}: got {value!r}, expected {' or '.join(map(repr, allowed))}")


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or a smaller one.

    Raises:
        UsageError: the message names both.
    """
    if not is_whole(value, least):
        raise UsageError(f"{name}: got {value!r}, expected a whole number, at least {least}")


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number, and no smaller one."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether it is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_counts(value: object) -> bool:
    """Whether it is two whole numbers, at least 1."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(is_whole(number, 1) for number in value)


def is_range(value: object, most: float = math.inf) -> bool:
    """Whether it is two finite numbers above 0, in order."""
    if not (isinstance(value, tuple | list) and len(value) == 2 and all(is_number(end) for end in value)):
        return False
    return bool(0 < value[0] <= value[1] <= most and value[1] < math.inf)
