"""A decoding child has a time limit for each job, kept by SIGKILL, and none for what is done in time."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from vidpipe.errors import VideoError
from vidpipe.spawn import spawn
from vidpipe.video.child import Child, serve


def main(pipe_fd: int) -> None:
    """Each job is a file for its PID, which appears whole, and whether to hang then; the answer is the PID."""

    def work(job: tuple[Path, bool]) -> int:
        path, hangs = job
        written = path.with_suffix(".tmp")
        written.write_text(str(os.getpid()))
        written.rename(path)
        if hangs:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        return os.getpid()

    serve(pipe_fd, work)


@pytest.fixture(autouse=True)
def found_by_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(main, "__module__", "test_child")


def test_a_job_that_does_not_end_is_killed(tmp_path: Path) -> None:
    child: Child[tuple[Path, bool], int] = Child(main, timeout_seconds=0.5, stop=Event())
    try:
        job = (tmp_path / "pid", True)
        child.send(job)
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"no end of decoding after 0\.5 s") as raised:
            child.receive(job)
        assert raised.value.reason == "timeout" and time.monotonic() - began >= 0.5
        assert child._process is None
        if job[0].exists():  # else it was killed before it came so far
            with pytest.raises(ProcessLookupError):
                os.kill(int(job[0].read_text()), 0)
    finally:
        child.close()


def test_a_child_whose_parent_is_gone_before_it_is_ready_ends_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    process, pipe = spawn(main)
    pipe.close()
    assert process.wait(60) == 0
    assert capfd.readouterr().err == ""


def test_a_child_finds_modules_where_its_parent_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same order, of folders of any name; what is no name, an import passes over."""
    for folder in ("installed", "beside the script's \u00e9"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "of_two_places.py").write_text(
            f"import os\ndef main(pipe, fd): os.write(fd, {folder!a}.encode())\n", encoding="ascii"
        )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    monkeypatch.syspath_prepend(tmp_path / folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "installed"), Path("/no/name")])
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as told:
        process, _ = spawn(importlib.import_module("of_two_places").main, [writing])
        os.close(writing)
        assert (process.wait(60), told.read().decode()) == (0, folder)


def test_jobs_in_time_share_a_child(tmp_path: Path) -> None:
    child: Child[tuple[Path, bool], int] = Child(main, timeout_seconds=600, stop=Event())
    try:
        pids = set()
        for job in [(tmp_path / "pid", False)] * 3:
            child.send(job)
            pids.add(child.receive(job))
        assert len(pids) == 1 and pids != {os.getpid()}
    finally:
        child.close()
