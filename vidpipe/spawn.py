"""Processes of vidpipe's own beside the main one, and files in memory that they share."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

# A terminal or a batch system sends them to whole groups of processes. What is to be done then is for the parent to say.
_LEFT_TO_PARENT = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}

_pipes: weakref.WeakSet[Connection[Any, Any]] = weakref.WeakSet()


def spawn(
    main: Callable[..., None], descriptors: Sequence[int] = ()
) -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    """Run a module's function in a new interpreter: main(descriptor of a pipe, *descriptors), which it inherits.

    It leaves signals to this process, except SIGKILL, and finds modules where it does, in that order: beside a script, there may be
    another vidpipe than the installed one. Before them comes what only PYTHONPATH, as it is by now, has.

    Returns:
        the process, and this end of the pipe. Forks of this process let go of that: it closes when all who have it do, and so a
        process is told to end.

    Raises:
        OSError: the system doesn't start it.
    """
    if not sys.executable:
        raise FileNotFoundError(errno.ENOENT, "sys.executable doesn't say where Python is")
    keep_standard_streams()
    ours, theirs = Pipe()
    _pipes.add(ours)
    inherited = [theirs.fileno(), *descriptors]
    call = f"from {main.__module__} import {main.__name__} as main; main(*map(int, sys.argv[1:]))"
    where = f"ours = {_module_places()!a}; sys.path[:] = [path for path in sys.path if path not in ours] + ours"
    command = [sys.executable, "-P", "-c", f"import sys; {where}; {call}", *map(str, inherited)]
    # One thread a library, since there is one process a core.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # It inherits what is blocked, from its first moment on.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    try:
        return subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL, env=env), ours
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()


def shared_file(name: str) -> IO[bytes]:
    """An unnamed file in memory, or on disk where the system has none in memory."""
    keep_standard_streams()
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(name), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def keep_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, as a daemon's may be.

    What is opened next would have its number: libraries would write their messages there, and a child have its own stream instead.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _module_places() -> list[str]:
    """Where this process finds modules; nothing relative, as it may have been in another folder when it found them."""
    places = [place for place in sys.path if isinstance(place, str) and Path(place).is_absolute()]
    own = str(Path(__file__).parents[1])
    return places if own in places else [own, *places]


def _leave_to_parent() -> None:
    for pipe in list(_pipes):
        pipe.close()


os.register_at_fork(after_in_child=_leave_to_parent)
