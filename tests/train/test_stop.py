"""Signals that come at awkward moments are noted like others, and act as before afterwards."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import loss_curve, raise_signal_at
from tests.train.toy import MakeRecipe
from vidpipe.train.loop import train
from vidpipe.train.stop import StopRequest


def test_a_signal_may_come_while_handlers_are_put_in_place_and_while_they_are_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while the first is being noted: torchrun passes on what its processes may have got by themselves."""
    before, original = signal.getsignal(signal.SIGUSR1), signal.signal
    sent: list[str] = []

    def impatient(number: int, handler: Any) -> Any:
        ours = signal.getsignal(number) != before
        if number == signal.SIGUSR1 and handler == before and ours and "before it is taken away" not in sent:
            sent.append("before it is taken away")
            signal.raise_signal(number)
        replaced = original(number, handler)
        if number == signal.SIGUSR1 and handler != before and when == "at once":
            sent.append("as soon as it is there")
            signal.raise_signal(number)
        return replaced

    for when, expected in (
        ("at once", ["as soon as it is there", "before it is taken away"]),
        ("at the end", ["before it is taken away"]),
    ):
        sent.clear()
        with monkeypatch.context() as patch:
            patch.setattr(signal, "signal", impatient)
            with StopRequest() as stop:
                assert stop.signal == ("SIGUSR1" if when == "at once" else None)
        assert stop.signal == "SIGUSR1" and sent == expected
        assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize("split", ["train", "."])
def test_a_signal_in_the_last_step_costs_no_log_row(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    """Without a split to evaluate the run is done then; with one it is still to be evaluated."""
    recipe = toy_recipe(log={"every_steps": 4})
    raise_signal_at(monkeypatch, 8, signal.SIGTERM)
    result = train(recipe, shards=toy_shards / split, out=tmp_path, device="cpu", quiet=True)
    assert (result.steps, result.stopped_by) == (9, None if split == "train" else "SIGTERM")
    before = loss_curve(tmp_path)
    assert [step for step, _ in before] == [4, 8, 9]
    result = train(recipe, shards=toy_shards / split, out=tmp_path, resume=True, device="cpu", quiet=True)
    assert result.stopped_by is None and loss_curve(tmp_path) == before
