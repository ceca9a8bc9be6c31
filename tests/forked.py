"""Functions in processes of their own, which tests signal, kill and wait for.

They are forked from a server that has imported torch and the trainer once, so a process costs no seconds of imports.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

_SLOW_IMPORTS = ["vidpipe.train.loop", "vidpipe.cli"]
_context = multiprocessing.get_context("forkserver")


class Forked:
    """A process that runs `target(*arguments)`; what that gives is its exit code, None being 0."""

    def __init__(self, target: Callable[..., int | None], *arguments: object, env: Mapping[str, str] | None = None):
        _context.set_forkserver_preload(_SLOW_IMPORTS)
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115  as long as this object is
        wanted = (target, arguments, self._output.name, {**os.environ, **(env or {})})
        self._process = _context.Process(target=_run, args=wanted, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def output(self) -> str:
        """What it has said so far on stdout and stderr."""
        return Path(self._output.name).read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.is_alive():  # its number may be another process's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended, and wait."""
        self._process.kill()
        self._process.join()

    def finish(self, code: int = 0) -> str:
        """Wait for its end with this exit code; gives its output."""
        self._process.join(240)
        assert self._process.exitcode == code, f"exit code {self._process.exitcode} instead of {code}: {self.output}"
        return self.output

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for something that this process does; it fails if the process ends before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self._process.is_alive() or condition(), f"it ended too soon: {self.output}"
            assert time.monotonic() < deadline, f"it doesn't come: {self.output}"
            time.sleep(0.01)


def command(*arguments: object) -> None:
    """`vidpipe ARGUMENTS...`, for `Forked`."""
    from vidpipe.cli import main

    sys.argv = ["vidpipe", *map(str, arguments)]
    main()


def start_ranks(
    count: int, target: Callable[..., int | None], *arguments: object, env: Mapping[str, str] | None = None
) -> list[Forked]:
    """So many processes as torchrun would start them on one machine."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world = {**address, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), **(env or {})}
    return [
        Forked(target, *arguments, env={"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", **world})
        for rank in range(count)
    ]


def free_port() -> int:
    """A port below those that systems hand out by themselves, so that nothing takes it until it is used."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port is free")


def _run(target: Callable[..., int | None], arguments: tuple[object, ...], output: str, env: Mapping[str, str]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(env)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    torch.set_num_threads(1)
    sys.exit(target(*arguments) or 0)
