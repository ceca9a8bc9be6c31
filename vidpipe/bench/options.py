"""What the options of all benchmarks are checked for."""

from __future__ import annotations

from vidpipe.errors import UsageError


def require_positive(options: object, benchmark: str, *names: str) -> None:
    """Refuse a value that isn't above 0; None is a default.

    Args:
        options: has these attributes.
        benchmark: its command, for the message.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UsageError(f"bench {benchmark}: {name}: got {value}, expected more than 0")
