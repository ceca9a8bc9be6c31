"""The command line: arguments to configuration to one call; nothing else. Results go to stdout, all else to stderr."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import typer

from vidpipe.cli import bench, data, lists, training  # noqa: F401  their commands come with them
from vidpipe.cli.options import app
from vidpipe.errors import VidpipeError

# The base of typer's usage errors: click's class, or that of the copy of click which newer releases of typer carry.
_USAGE_ERRORS: Any = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_INTERRUPTED = "interrupted; the same command goes on, `vidpipe train` with --resume"


def main() -> NoReturn:
    """Run the command line; every foreseeable error is one line on stderr and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does; a name that it has no letters for costs no result
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
        if code == 130:
            _said(_INTERRUPTED, code)
    except BaseException as error:
        code = _code_of(error)
        if _has_peers():
            _leave_peers(error, code)
        if code is None:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _code_of(error: BaseException) -> int | None:
    """Exit code of an error, which has been said when this returns; None for one that nobody foresaw."""
    if isinstance(error, _USAGE_ERRORS):
        error.show()
        return int(error.exit_code)
    match error:
        case VidpipeError():
            return _said(str(error), error.exit_code)
        case KeyboardInterrupt() | typer.Abort():
            return _said(_INTERRUPTED, 130)
        case BrokenPipeError():
            sys.stderr.close()
            return 1
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return _said(f"{where}{error.strerror or error}", 1)
    return None


def _said(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _has_peers() -> bool:
    """Whether this is one of several processes that wait for each other; torch is not imported to find out."""
    distributed = sys.modules.get("torch.distributed")
    return (
        distributed is not None
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _leave_peers(error: BaseException, code: int | None) -> NoReturn:
    """End at once, so that the launcher ends the others.

    The usual end destroys NCCL's groups, which waits for the other processes, and they wait for this one, until NCCL's timeout.
    """
    if code is None:
        sys.excepthook(type(error), error, error.__traceback__)
    with suppress(OSError, ValueError):  # nobody reads them any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1 if code is None else code)
