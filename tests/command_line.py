"""Runs the command line within the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class CommandResult:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., CommandResult]


def run_command(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of `vidpipe ARGUMENTS...`."""
    from vidpipe.cli import main

    monkeypatch.setattr(sys, "argv", ["vidpipe", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return int(exit_info.value.code or 0)
