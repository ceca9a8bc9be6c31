"""The command line: arguments to configuration to one call; nothing else. Results go to stdout, all else to stderr."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from vidpipe.cli import bench, data, lists, training  # noqa: F401  their commands come with them
from vidpipe.cli.options import app
from vidpipe.errors import VidpipeError

# The base of typer's usage errors: click's class, or that of the copy of click which newer releases of typer carry.
_USAGE_ERRORS: Any = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> NoReturn:
    """Run the command line; every foreseeable error is one line on stderr and an exit code."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except _USAGE_ERRORS as error:
        error.show()
        code = error.exit_code
    except VidpipeError as error:
        code = _failed(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _failed(f"{where}{error.strerror or error}", 1)
    if code == 130:
        _failed("interrupted; run the same command again to go on", code)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
