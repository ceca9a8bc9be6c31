"""The stream beside the model's, with events that are told when the device is done."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from vidpipe.loader.transfer import SideStream


class _Event:
    def __init__(self, *, blocking: bool) -> None:
        assert blocking

    def record(self, stream: object) -> None:
        """Nothing is queued here."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class _Memory:
    pass


def test_memory_is_held_until_the_work_that_reads_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: object())
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    stream = SideStream(torch.device("cuda", 0))
    held = []
    for number in range(2):
        output, read = _Memory(), _Memory()
        held.append([weakref.ref(output), weakref.ref(read)])
        stream.keep(output)
        del output
        gc.collect()
        assert held[number][0]() is not None
        assert stream.mark(read) is not None
        del read
    gc.collect()
    assert all(reference() is not None for pair in held for reference in pair)
    stream.close()
    gc.collect()
    assert all(reference() is None for pair in held for reference in pair)


def test_one_stream_goes_on_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[object] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: SimpleNamespace(wait_event=followed.append))
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    first, second = (SideStream(torch.device("cuda", 0)) for _ in range(2))
    event = first.mark(None)
    second.follow(event)
    second.follow(None)
    assert followed == [event]


def test_without_a_gpu_nothing_is_held() -> None:
    stream = SideStream(torch.device("cpu"))
    output = _Memory()
    reference = weakref.ref(output)
    stream.keep(output)
    assert stream.mark(output) is None
    del output
    gc.collect()
    assert reference() is None
