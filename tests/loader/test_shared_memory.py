"""Memory that processes share: parts that come and go, and objects that are given once."""

from __future__ import annotations

import gc
import os
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vidpipe.errors import StorageError, UsageError, VidpipeError
from vidpipe.loader.reading.shared_memory import SharedMemory, mapped_memory, share, shared


def test_shared_memory_is_given_back_and_its_place_used_again() -> None:
    unlocked: list[int] = []
    memory = SharedMemory(lambda part: partial(unlocked.append, part.nbytes))
    first, second = memory.allocate(300_000), memory.allocate(5)
    elsewhere = mapped_memory(memory.descriptor)
    first[:], second[:] = 7, range(5)
    assert (elsewhere[memory.offset(first) :][:300_000] == 7).all()
    assert elsewhere[memory.offset(second[:3]) :][:5].tolist() == [0, 1, 2, 3, 4]
    used, place = os.fstat(memory.descriptor).st_blocks, memory.offset(first)
    del first
    gc.collect()
    assert len(unlocked) == 1 and os.fstat(memory.descriptor).st_blocks < used / 2
    again = memory.allocate(280_000)
    assert memory.offset(again) == place and not again.any()
    assert second.tolist() == [0, 1, 2, 3, 4]


def test_a_refusal_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of too large a part, nor of one whose pages can't be locked."""
    monkeypatch.setattr("vidpipe.loader.reading.shared_memory.ADDRESSES", 1 << 16)
    refuse = [False]

    def lock(part: np.ndarray) -> Callable[[], None]:
        if refuse[0]:
            raise VidpipeError("no pages left")
        return lambda: None

    memory = SharedMemory(lock)
    whole = memory.allocate(1 << 16)
    with pytest.raises(StorageError, match="keep fewer of them"):
        memory.allocate(1)
    del whole
    refuse[0] = True
    with pytest.raises(VidpipeError, match="no pages left"):
        memory.allocate(1 << 16)
    refuse[0] = False
    assert len(memory.allocate(1 << 16)) == 1 << 16


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_core_dump_leaves_it_out() -> None:
    """The system would take memory for all of it, as much as there is."""
    memory = SharedMemory()
    elsewhere = mapped_memory(memory.descriptor)
    mappings = Path("/proc/self/smaps").read_text().split("vidpipe-frames")[1:]
    flags = [re.search(r"VmFlags:(.*)", mapping).group(1).split() for mapping in mappings]
    assert len(flags) >= 2 and all("dd" in each for each in flags) and len(elsewhere)


def test_where_so_much_cant_be_addressed_it_is_said_what_to_do() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"1024 GB of addresses .*File too large.*ulimit -v.*readers='threads'"):
            SharedMemory()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_parts_that_threads_take_at_once_dont_overlap_nor_take_others_with_them() -> None:
    memory = SharedMemory()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda number: memory.allocate(4096 * (1 + number % 3)), range(400)))
    for number, part in enumerate(parts):
        part[:] = number % 251
    del part
    del parts[100:300:2]
    gc.collect()
    left = [*range(100), *range(101, 300, 2), *range(300, 400)]
    assert all((part == number % 251).all() for number, part in zip(left, parts, strict=True))


def test_what_is_shared_comes_as_it_was() -> None:
    value = {"name": "x" * 1000, "arrays": [np.arange(1000), np.zeros((0, 3), np.uint8), np.eye(3, dtype=np.float32)]}
    with share(value) as file:
        got = shared(file.fileno())
    assert got["name"] == value["name"]
    for ours, theirs in zip(got["arrays"], value["arrays"], strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs) and not ours.flags.writeable
