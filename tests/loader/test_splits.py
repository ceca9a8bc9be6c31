"""What is read ahead of splits on this machine, and in which order shards are brought near."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import time
from pathlib import Path

import pytest

import vidpipe
from vidpipe.loader.reading.splits import Split
from vidpipe.loader.remote.cache import Prefetcher

BYTES = 48 << 20  # several times what Linux reads for one advice


def resident_bytes(path: Path) -> int:
    """How much of a file is in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), pages)
        del start
        assert not failed, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def forget(path: Path) -> None:
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice about files")
def test_all_of_a_shard_is_read_ahead(motion_shards: Path, tmp_path: Path) -> None:
    split = Split(Path(shutil.copytree(motion_shards / "val", tmp_path / "val")))
    name, entry = next(iter(split.entries.items()))
    split.entries[name] = entry.model_copy(update={"bytes": BYTES})
    shard = split.folder / name
    shard.write_bytes(bytes(BYTES))
    forget(shard)
    if resident_bytes(shard) > BYTES // 10:
        pytest.skip("files can't be dropped from memory here")
    deadline = time.monotonic() + 60
    while (found := resident_bytes(shard)) < BYTES and time.monotonic() < deadline:
        # Again and again, as a system that is short of memory heeds only some of the advice, or lets go of what it has read;
        # advice of which it always heeds but the beginning would still never bring all of the file.
        split.prefetch(name)
        time.sleep(0.2)
    assert found == BYTES


def test_the_processes_of_a_machine_begin_at_different_shards_of_the_window(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(Prefetcher, "want", lambda _, shards: asked.append(list(shards)))
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    options = vidpipe.LoaderOptions(shuffle="windowed", prefetch_batches=0)
    with vidpipe.Loader(motion_shards, rank=10, world_size=16, options=options, size=32, backend="torch") as loader:
        loader._source.prefetch([[0, 1, 2, 3], [4, 5]], rank=10, world_size=16)
    assert asked == [[2, 3, 0, 1, 5, 4]]
