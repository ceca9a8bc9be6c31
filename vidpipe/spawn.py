"""Processes of vidpipe's own beside the main one, and files in memory that they share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO


def spawn(main: Callable[..., None], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Run a module's function in a new interpreter: main(*descriptors), which it inherits. Ctrl-C is left to its parent.

    It finds modules where this process does, and in that order: beside a script, there may be another vidpipe than the installed one.
    Before them comes what only PYTHONPATH, as it is by now, has.
    """
    ours = [path for path in sys.path if isinstance(path, str)]  # as an import does, it passes over all else
    where = f"ours = {ours!a}; sys.path[:] = [path for path in sys.path if path not in ours] + ours"
    call = f"from {main.__module__} import {main.__name__} as main; main(*map(int, sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", f"import sys; {where}; {call}", *map(str, descriptors)]
    # One thread a library, since there is one process a core.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # It inherits what is blocked, from its first moment on.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=env)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def shared_file(name: str) -> IO[bytes]:
    """An unnamed file in memory, or on disk where the system has none in memory."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(name), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
