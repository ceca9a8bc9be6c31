"""How a prep run shows itself, on terminals of all kinds."""

from __future__ import annotations

import pytest

from vidpipe.prep.parts import Reject
from vidpipe.prep.progress import ConsoleProgress
from vidpipe.prep.shard_job import VideoDone


@pytest.mark.parametrize(("terminal", "begins"), [("xterm", "123457"), ("dumb", "prep: 123457")])
def test_the_count_and_the_time_left_are_seen_on_80_columns(
    terminal: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": terminal, "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vidpipe.prep.progress.LINE_EVERY_SECONDS", 0.0)
    with ConsoleProgress() as progress:
        progress.start(videos=240_436, done=123_456)
        progress.video(VideoDone("a.mp4", clips=4, bytes=14_000_000, reject=None))
    shown = capsys.readouterr().err
    line = next(line for line in shown.splitlines() if "123457/240436 videos, " in line)
    assert begins in line and " to go, " in line


def test_a_name_neither_breaks_its_line_nor_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    path = "a\n\x1b[2Jb [red]é.mp4"
    with ConsoleProgress() as progress:
        progress.start(videos=1, done=0)
        reject = Reject(
            path=path, label="a", shard="00000", stage="find", reason="empty", message="the file has zero bytes"
        )
        progress.video(VideoDone(path, clips=0, bytes=0, reject=reject))
    assert "reject a\\n\\x1b[2Jb [red]é.mp4: empty: the file has zero bytes" in capsys.readouterr().err.splitlines()
