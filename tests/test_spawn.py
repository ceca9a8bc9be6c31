"""Processes of vidpipe's own: where they look, what they leave to their parent, whatever state that is in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIG_BLOCK, Signals, pthread_sigmask

import pytest

from vidpipe.spawn import spawn

_ANSWERING = """
from multiprocessing.connection import Connection

def main(pipe_fd, *descriptors):
    pipe = Connection(pipe_fd)
    try:
        while True:
            pipe.send((pipe.recv(), descriptors))
    except EOFError:
        pass
"""


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that children find in a folder of `sys.path`."""
    (tmp_path / "answering_child.py").write_text(_ANSWERING)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])

    def main(pipe_fd: int, *descriptors: int) -> None: ...

    monkeypatch.setattr(main, "__module__", "answering_child")
    return main


def test_nothing_is_looked_for_in_the_folder_that_its_parent_is_in_by_now(
    answering: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "answering_child.py").write_text("raise SystemExit('found elsewhere')")
    monkeypatch.chdir(elsewhere)
    process, pipe = spawn(answering)
    with process, pipe:
        pipe.send("word")
        assert pipe.recv() == ("word", ())


def test_signals_are_left_to_the_parent(answering: Callable[..., None]) -> None:
    process, pipe = spawn(answering)
    with process, pipe:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
            process.send_signal(Signals[name])
            pipe.send(name)
            assert pipe.recv()[0] == name
            assert Signals[name] not in pthread_sigmask(SIG_BLOCK, [])  # of the parent
        pipe.close()
        assert process.wait(60) == 0


_DAEMON = """
import os, sys
from vidpipe.spawn import shared_file, spawn

def main(): ...
main.__module__ = "answering_child"

with shared_file("frames") as file:
    file.write(b"frames")
    process, pipe = spawn(main, [file.fileno()])
    pipe.send("word")
    said, descriptors = pipe.recv()
    pipe.close()
    os.write(2, b"a library's message")
    file.seek(0)
    sys.exit(0 if (said, descriptors, file.read()) == ("word", (file.fileno(),), b"frames") and file.fileno() > 2 else 1)
"""


@pytest.mark.usefixtures("answering")
def test_a_parent_may_have_closed_its_standard_streams() -> None:
    script = f"import sys; sys.path[:0] = {sys.path[1:]!r}\n{_DAEMON}"
    command = ["sh", "-c", 'exec "$0" -P -c "$1" 0<&- 1<&- 2<&-', sys.executable, script]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
