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

    What it doesn't find where an interpreter looks by itself, it finds where this process does, such as beside its script.
    """
    where = f"sys.path += [path for path in {sys.path!r} if path not in sys.path]"
    call = f"from {main.__module__} import {main.__name__} as main; main(*map(int, sys.argv[1:]))"
    code = f"import sys; {where}; {call}"
    command = [sys.executable, "-P", "-c", code, *map(str, descriptors)]
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
