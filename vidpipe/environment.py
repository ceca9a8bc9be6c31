"""Numbers that a launcher says in the environment."""

from __future__ import annotations

import os

from vidpipe.errors import UsageError


def whole_from_environment(name: str, default: int, *, least: int = 0) -> int:
    """What a variable says, such as RANK, or `default` where it isn't set or is empty.

    Raises:
        UsageError: it is no whole number, or a smaller one than `least`.
    """
    text = os.environ.get(name) or str(default)
    if not (text.strip().isdecimal() and int(text) >= least):
        raise UsageError(
            f"{name}: the environment says {text!r}, expected a whole number, at least {least}; unset it, or start with torchrun"
        )
    return int(text)
