"""A loader's life in other people's programs: closed, dropped, pickled, left behind; and raw clips for their own transforms."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from torch import distributed

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.manifest import load_manifest


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("vidpipe")}


@pytest.fixture
def new_threads() -> Callable[[], set[threading.Thread]]:
    """The loaders' threads that have come since the test began; those that other tests left may end at any time."""
    before = own_threads()
    return lambda: own_threads() - before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_dropped_loader_leaves_neither_threads_nor_files(
    motion_shards: Path, backend: str, new_threads: Callable[[], set[threading.Thread]]
) -> None:

    def drop(number: int) -> None:
        for _ in range(number):
            loader = vidpipe.Loader(motion_shards, size=32, batch_size=2, backend=backend)
            iterator = iter(loader)
            next(iterator)
            del loader, iterator
        gc.collect()
        deadline = time.monotonic() + 60
        while new_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        gc.collect()
        assert not new_threads()

    drop(1)  # libraries open files of their own when they are first used
    files = open_files()
    drop(3)
    assert open_files() <= files


def test_a_closed_loader_leaves_no_threads(
    motion_shards: Path, backend: str, new_threads: Callable[[], set[threading.Thread]]
) -> None:
    loader = vidpipe.Loader(motion_shards, size=32, batch_size=2, backend=backend)
    for _ in loader:
        break
    loader.close()
    assert not new_threads()
    with pytest.raises(UsageError, match="loader: was closed"):
        next(iter(loader))


_FORKED = """
import os, sys, vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.remote.stop import Stop

parent, set_stop = os.getpid(), Stop.set

def set_here(stop):
    print("stopped", "in its process" if os.getpid() == parent else "in a fork", flush=True)
    set_stop(stop)

Stop.set = set_here
loader = vidpipe.Loader(sys.argv[1], size=32, batch_size=2, backend="torch")
next(iter(loader))
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    next(iter(loader))
except UsageError as error:
    print(error, flush=True)
    loader.close()
"""  # the locks of whatever is stopped may be held by a thread that a fork hasn't got


def test_a_forked_loader_says_that_it_has_no_threads_and_ends_nothing(motion_shards: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKED, str(motion_shards)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, *stopped = done.stdout.splitlines()
    assert "made in process" in said and "send it there pickled" in said
    assert set(stopped) == {"stopped in its process"}


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
def test_a_loader_that_is_not_made_after_all_leaves_no_threads(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, new_threads: Callable[[], set[threading.Thread]], shuffle: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        assert new_threads()
        raise UsageError("no such engine")

    monkeypatch.setattr("vidpipe.loader.workers.make_engine", refuse)
    with pytest.raises(UsageError, match="no such engine") as caught:
        vidpipe.Loader(motion_shards, backend="torch", options=vidpipe.LoaderOptions(shuffle=shuffle))
    assert caught.tb and not new_threads()  # while the traceback still holds the loader


def test_threads_that_the_system_refuses_are_an_error_and_leave_none(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, new_threads: Callable[[], set[threading.Thread]]
) -> None:
    torch_threads, start = torch.get_num_threads(), threading.Thread.start

    def refuse_the_third(thread: threading.Thread) -> None:
        if len(new_threads()) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    with pytest.raises(UsageError, match=r"threads: the system doesn't start 4 of them \(can't start new thread\)"):
        vidpipe.Loader(motion_shards, backend="torch", options=vidpipe.LoaderOptions(threads=4))
    assert not new_threads() and torch.get_num_threads() == torch_threads


def test_the_processes_of_a_machine_divide_its_cores(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, new_threads: Callable[[], set[threading.Thread]]
) -> None:
    """Of 8 cores, on which all of them may run; with 32 cores, 4 processes have 8 each that are bound to them."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    for cores, processes, threads in ((8, 1, 8), (8, 4, 2), (8, 16, 1), (32, 4, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", f"{processes}")
        with vidpipe.Loader(motion_shards, backend="torch"):
            assert len(new_threads()) == threads
        assert not new_threads()


_LEFT_OPEN = """
import sys, vidpipe
shards, backend = sys.argv[1:]
ended, begun = (vidpipe.Loader(shards, size=32, batch_size=8, augment="train", backend=backend) for _ in range(2))
print(sum(len(batch) for batch in ended))
iterator = iter(begun)
print(len(next(iterator)))
sys.kept = dict(sys.modules)  # as some libraries do; all modules are then emptied before the loaders go
"""


def test_an_interpreter_ends_though_nobody_closed_the_loader(motion_shards: Path, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _LEFT_OPEN, str(motion_shards), backend],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "32\n8\n", "")


def _first_keys(loader: vidpipe.Loader) -> tuple[int, list[str]]:
    with loader:
        return loader.rank, next(iter(loader)).key


@pytest.mark.slow
def test_a_loader_is_sent_to_a_spawned_process(motion_shards: Path) -> None:
    with (
        vidpipe.Loader(motion_shards, size=32, batch_size=2, backend="torch") as loader,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        assert pool.apply(_first_keys, (loader,)) == (0, next(iter(loader)).key)


def test_rank_and_world_size_are_torchs_or_else_the_environments(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    early = vidpipe.Loader(motion_shards, size=32, batch_size=2, backend="torch")
    assert (early.rank, early.world_size, len(early)) == (1, 4, 4)
    packed = pickle.dumps(early)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with vidpipe.Loader(motion_shards, size=32, batch_size=2, backend="torch") as loader:
            assert (loader.rank, loader.world_size, len(loader), len(list(loader))) == (0, 1, 16, 16)
        with (
            early,
            pytest.raises(UsageError, match=r"was made for rank 1 of 4, but torch\.distributed says 0 of 1: make it"),
        ):
            iter(early)
        with vidpipe.Loader(motion_shards, size=32, rank=1, world_size=4) as told:
            assert len(next(iter(told))) == 8
    finally:
        distributed.destroy_process_group()
    monkeypatch.delenv("RANK")  # as Lightning starts its processes
    with pickle.loads(packed) as sent:  # to a process that doesn't know whose it is
        assert (sent.rank, sent.world_size) == (1, 4)
    with pytest.raises(UsageError, match="RANK: isn't set, but WORLD_SIZE is 4: make the loader after"):
        vidpipe.Loader(motion_shards)
    for rank in (-1, 4):
        with pytest.raises(UsageError, match=f"rank: got {rank}, expected 0 to 3"):
            vidpipe.Loader(motion_shards, rank=rank, world_size=4)


def test_raw_clips_are_what_is_stored(motion_shards: Path) -> None:
    folder = motion_shards / "train"
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    reader = ClipReader(folder, manifest, index)
    with vidpipe.Loader(folder, batch_size=5, frames=3, stride=4, backend="torch", seed=1) as loader:
        batches = list(loader.read_batches())
        stats = loader.stats()
        assert loader.epoch == 1 and stats.clips == 32 and stats.bytes_per_second > 0
        later = [batch.key for batch in loader.read_batches()]
    assert sorted(key for batch in batches for key in batch.key) == sorted(index.key.take(range(32)))
    for batch in batches:
        assert batch.video.shape[:2] == (len(batch), 3) and batch.video.dtype == np.uint8
        assert not batch.video.flags.owndata  # the clips' own memory
        for place, key in enumerate(batch.key):
            sample = index.key.take(range(len(index))).index(key)
            stored = reader.read(sample, range(16), np.empty(16 * index.frame_bytes(sample), np.uint8))
            first = (16 - 5 + 1) // 2
            assert np.array_equal(batch.video[place], stored[first : first + 5 : 2])
            assert np.array_equal(batch.clips[place], batch.video[place])
            assert batch.label[place] == index.label[sample]
    with vidpipe.Loader(folder, batch_size=5, size=32, frames=3, stride=4, backend="torch", seed=1) as loader:
        assert [batch.key for batch in loader] == [batch.key for batch in batches]
        assert [batch.key for batch in loader] == later


def test_raw_clips_of_several_sizes_do_not_make_one_array(real_shards: Path) -> None:
    with vidpipe.Loader(real_shards, batch_size=7, frames=4, backend="torch") as loader:
        batch = next(loader.read_batches())
    assert len({clip.shape for clip in batch.clips}) > 1 and all(len(clip) == 4 for clip in batch.clips)
    with pytest.raises(UsageError, match=r"clips of \d+x\d+, .* in one batch: .*--crop"):
        _ = batch.video


def test_raw_batches_stay_as_they_were_given(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, batch_size=4, backend="torch") as loader:
        batches = list(loader.read_batches())
        copies = [batch.video.copy() for batch in batches]
        for _ in loader.read_batches():
            pass
    assert all(np.array_equal(batch.video, copy) for batch, copy in zip(batches, copies, strict=True))


def _print_memory_of_fifty_epochs(shards: Path) -> None:
    """What is resident after each of them, and the bytes of a batch."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with vidpipe.Loader(shards, batch_size=8, size=64, augment="train", backend="torch") as loader:
        used, batch_bytes = [], 0
        for _ in range(50):
            for batch in loader:
                batch_bytes = batch.video.nbytes
            used.append(resident())
    print(json.dumps((used, batch_bytes)))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")  # noqa: PTH110
@pytest.mark.slow
def test_memory_is_flat_over_fifty_epochs(motion_shards: Path) -> None:
    """In a process that holds nothing of other tests, which could come and go meanwhile."""
    said = Forked(_print_memory_of_fifty_epochs, motion_shards).finish()
    used, batch_bytes = json.loads(said.splitlines()[-1])
    # The least of ten epochs is free of what an allocator holds on to for a while; four batches an epoch go by.
    assert min(used[40:]) - min(used[10:20]) < 30 * batch_bytes / 10, used
