"""A run folder is one run's at a time."""

from __future__ import annotations

import errno
import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.train import run_lock
from vidpipe.train.data import open_train_loader
from vidpipe.train.loop import train
from vidpipe.train.run_lock import only_run
from vidpipe.train.runlog import read_metrics
from vidpipe.train.stop import StopRequest


def test_a_second_run_in_a_run_folder_is_refused_and_disturbs_nothing(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 0.0)
    out = tmp_path / "run"

    def begin(**more: Any) -> None:
        train(toy_recipe(), shards=toy_shards, out=out, device="cpu", quiet=True, **more)

    def open_while_another_begins(*args: Any, **kwargs: Any) -> Any:
        with pytest.raises(UsageError, match="another run is at work in this folder"):
            begin(resume=True)
        return open_train_loader(*args, **kwargs)

    begin(open_loader=open_while_another_begins)
    assert [row["step"] for row in read_metrics(out)] == list(range(1, 10))
    assert not (out / run_lock.LOCK).exists()


def test_a_run_waits_for_one_that_is_ending(tmp_path: Path) -> None:
    said: list[str] = []
    with ExitStack() as first:
        first.enter_context(only_run(tmp_path, stop=StopRequest(), say=said.append))

        def end_first(sentence: str) -> None:
            said.append(sentence)
            first.close()

        with only_run(tmp_path, stop=StopRequest(), say=end_first):
            assert len(said) == 1 and "waiting" in said[0]
            assert (tmp_path / run_lock.LOCK).exists()
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_a_run_that_cannot_begin_leaves_no_folder(toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such folder"):
        train(toy_recipe(), shards=tmp_path / "nowhere", out=tmp_path / "run", device="cpu", quiet=True)
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    with only_run(tmp_path, stop=StopRequest(), say=said.append):
        assert len(said) == 1 and "has no locks" in said[0]
