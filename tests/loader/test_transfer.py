"""The stream beside the model's, with events that are told when the device is done."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vidpipe.loader.background import Background
from vidpipe.loader.sampling.place import Spot
from vidpipe.loader.transfer import SideStream
from vidpipe.train.writer import CheckpointWriter


class _Event:
    """Of a device that is done as soon as somebody waits for it."""

    def __init__(self, *, blocking: bool) -> None:
        assert blocking
        self.before_end: Callable[[], object] = lambda: None

    def record(self, stream: object) -> None:
        """Nothing is queued here."""

    def synchronize(self) -> None:
        self.before_end()


class _Memory:
    pass


def test_memory_is_held_until_the_work_that_reads_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: SimpleNamespace(device=device))
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    stream = SideStream(torch.device("cuda", 0))
    held: list[list[weakref.ref[_Memory]]] = []
    ended: list[int] = []

    def check(number: int) -> None:
        assert all(reference() is not None for reference in held[number])
        ended.append(number)

    for number in range(3):
        with stream.queue():
            output, read = _Memory(), _Memory()
            held.append([weakref.ref(output), weakref.ref(read)])
            stream.keep(output)
            del output
            event = stream.mark(read)
            event.before_end = partial(check, number)
            del read
    assert ended == [0]  # two are under way, and nobody has waited for them
    stream.close()
    assert ended == [0, 1, 2]
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


def test_threads_beside_the_main_one_stay_on_their_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else they would give the process a context on the first one too, which is current in new threads."""
    device, current, worked = torch.device("cuda", 3), threading.local(), []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(current, "device", device))

    def work(what: object) -> object:
        worked.append(getattr(current, "device", None))
        return what

    background = Background(ahead=1, following=lambda spot: spot, across_epochs=False, device=device)
    assert len([*background.run(Spot(0, 0), 2, kind="", start=work, finish=work, hand_over=lambda made: made)]) == 2
    background.close()
    with (
        monkeypatch.context() as patch,
        CheckpointWriter(tmp_path, keep_last=1, rank=0, sharded=False, device=device) as writer,
    ):
        patch.setattr(torch, "save", lambda state, stream: work(state))
        writer.save({"step": 1}, best=False)
    assert worked == [device] * 5
