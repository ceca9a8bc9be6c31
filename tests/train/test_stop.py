"""Signals that come at awkward moments are noted like others, and act as before afterwards."""

from __future__ import annotations

import signal
from typing import Any

import pytest

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
