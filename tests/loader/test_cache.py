"""The cache of shards: fetched once by any number of processes, bounded, and never damaged by one that dies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from loader.cached import SIZE, Fetches, entry, read, whole_files

from vidpipe.errors import ShardError, StorageError
from vidpipe.files import FOLDER_LOCK, LockedFile
from vidpipe.loader.remote.cache import Prefetcher, ShardCache
from vidpipe.loader.remote.stop import Stop


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_shard_is_fetched_once_and_the_longest_unused_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    """In whatever order the system lists the folder, and though all are used within one tick of its clock."""
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=newest_first)))
    cache, fetch = ShardCache(tmp_path, max_bytes=3 * SIZE), Fetches()
    for number in (0, 1, 2, 0, 3):
        assert read(cache, number, fetch) == b"x" * SIZE
    assert fetch.count == 4
    assert whole_files(tmp_path) == {entry(number).sha256 for number in (0, 2, 3)}


def test_room_is_made_where_only_what_may_be_written_can_be_locked_for_oneself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where flock(2) has the file open for writing."""
    flock = fcntl.flock

    def flock_of_nfs(descriptor: int, operation: int) -> None:
        is_readonly = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if operation & fcntl.LOCK_EX and is_readonly:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    cache, fetch = ShardCache(tmp_path, max_bytes=2 * SIZE), Fetches()
    for number in (0, 1, 2):
        assert read(cache, number, fetch) == b"x" * SIZE
    assert whole_files(tmp_path) == {entry(number).sha256 for number in (1, 2)}


def test_room_is_made_where_another_machine_removes_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on network file systems: whatever is done to an open file that another machine has removed fails, but for closing it."""
    flock, close, stale = fcntl.flock, os.close, set[int]()

    def flock_of_what_is_there(descriptor: int, operation: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if operation & fcntl.LOCK_EX and path.name == f"{entry(0).sha256}.tar":
            path.unlink()
            stale.add(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        flock(descriptor, operation)

    def close_and_complain(descriptor: int) -> None:
        close(descriptor)
        if descriptor in stale:
            stale.remove(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    cache, fetch = ShardCache(tmp_path, max_bytes=2 * SIZE), Fetches()
    for number in (0, 1):
        read(cache, number, fetch)
    monkeypatch.setattr(fcntl, "flock", flock_of_what_is_there)
    monkeypatch.setattr(os, "close", close_and_complain)
    assert read(cache, 2, fetch) == b"x" * SIZE
    assert whole_files(tmp_path) == {entry(number).sha256 for number in (1, 2)} and not stale


def test_no_file_that_had_a_shards_name_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may not show yet what another machine has brought: it is fetched once more, into a file of its own."""
    cache, fetch = ShardCache(tmp_path, max_bytes=3 * SIZE), Fetches()
    used = cache.open(entry(0), fetch)
    seen, openings = Path.exists, os.open

    def open_later(path: Path, flags: int, mode: int = 0o777) -> int:
        if path == tmp_path / f"{entry(0).sha256}.tar" and fetch.count == 1:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return openings(path, flags, mode)

    monkeypatch.setattr(os, "open", open_later)
    monkeypatch.setattr(Path, "exists", lambda path: path.suffix != ".tar" and seen(path))
    before = os.fstat(used.descriptor)
    assert read(cache, 0, fetch) == b"x" * SIZE and fetch.count == 2
    assert os.pread(used.descriptor, SIZE, 0) == b"x" * SIZE
    assert os.fstat(used.descriptor).st_mtime_ns == before.st_mtime_ns
    used.close()


def test_a_cache_that_was_cleared_is_filled_again(tmp_path: Path) -> None:
    cache, fetch = ShardCache(tmp_path / "cache", max_bytes=3 * SIZE), Fetches()
    read(cache, 0, fetch)
    shutil.rmtree(tmp_path / "cache")
    assert read(cache, 0, fetch) == b"x" * SIZE and fetch.count == 2


def test_a_shard_gets_its_name_while_nobody_counts_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever makes room could find it under neither name, and take more than there is."""
    rename, refused = Path.rename, list[bool]()

    def rename_alone(path: Path, target: Path) -> Path:
        with pytest.raises(BlockingIOError):
            LockedFile(tmp_path / FOLDER_LOCK, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused.append(True)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_alone)
    read(ShardCache(tmp_path, max_bytes=3 * SIZE), 0, Fetches())
    assert refused == [True]


def test_what_is_in_use_stays_and_a_full_cache_is_an_error(tmp_path: Path) -> None:
    cache, fetch = ShardCache(tmp_path, max_bytes=2 * SIZE), Fetches()
    held = [cache.open(entry(number), fetch) for number in (0, 1)]
    with pytest.raises(ShardError, match=r"no room .* raise cache_gb"):
        cache.open(entry(2), fetch, patience_seconds=0.1)
    assert whole_files(tmp_path) == {entry(0).sha256, entry(1).sha256}
    timer = threading.Timer(0.2, held[0].close)
    timer.start()
    cache.open(entry(2), fetch).close()
    timer.join()
    assert whole_files(tmp_path) == {entry(1).sha256, entry(2).sha256}
    held[1].close()


def test_patience_for_room_begins_when_nobody_else_fetches_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's fetch fails after ten minutes; a second later, there is room."""
    held = ShardCache(tmp_path, max_bytes=SIZE).open(entry(0), Fetches())
    turn, now = tmp_path / f"{entry(1).sha256}.lock", [0.0]
    fetching = LockedFile(turn, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
    monkeypatch.setattr(
        "vidpipe.loader.remote.cache.time", SimpleNamespace(monotonic=lambda: now[0], time_ns=time.time_ns)
    )

    class Waiting(Stop):
        def wait(self, seconds: float) -> bool:
            if turn.exists() and now[0] == 0:
                turn.unlink()
                fetching.close()
                now[0] += 600
            else:
                held.close()
                now[0] += 1
            return False

    ShardCache(tmp_path, max_bytes=SIZE, stop=Waiting()).open(entry(1), Fetches(), patience_seconds=2).close()
    assert now == [601]


def test_only_a_copy_that_is_not_what_was_fetched_is_renewed(tmp_path: Path) -> None:
    cache, fetch = ShardCache(tmp_path, max_bytes=3 * SIZE), Fetches()
    sound = entry(0).model_copy(update={"sha256": hashlib.sha256(b"x" * SIZE).hexdigest()})
    with cache.open(sound, fetch) as file:
        assert not cache.renew(sound, file.descriptor) and cache.holds(sound)
        (tmp_path / f"{sound.sha256}.tar").write_bytes(b"y" * SIZE)
        assert cache.renew(sound, file.descriptor) and not cache.holds(sound)


def test_what_left_the_cache_is_brought_again_and_nothing_twice_at_once() -> None:
    brought, begun, going_on = [list[int](), threading.Semaphore(0), threading.Semaphore(0)]

    def bring(shard: int) -> None:
        brought.append(shard)
        begun.release()
        going_on.acquire()

    prefetcher = Prefetcher(bring, threads=1)
    prefetcher.want([0, 1])
    assert begun.acquire(timeout=60)
    for following in ([1, 0], [0, 2, 2, 1], [0, 2, 2, 1]):  # asked for while 0, 1 and 0 are being brought
        prefetcher.want(following)
        going_on.release()
        assert begun.acquire(timeout=60), brought
    prefetcher.stop()
    going_on.release()
    prefetcher.join(60)
    assert brought == [0, 1, 0, 2]


def test_threads_that_want_the_same_shard_fetch_it_once(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, max_bytes=3 * SIZE)
    count = 0

    def slow(descriptor: int) -> None:
        nonlocal count
        count += 1
        time.sleep(0.2)
        os.pwrite(descriptor, b"x" * SIZE, 0)

    threads = [threading.Thread(target=lambda: cache.open(entry(0), slow).close()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 1


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, max_bytes=3 * SIZE)

    def failing(descriptor: int) -> None:
        os.pwrite(descriptor, b"half", 0)
        raise ShardError("the network is down")

    with pytest.raises(ShardError, match="network"):
        cache.open(entry(0), failing)
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER_LOCK]
    assert read(cache, 0, Fetches()) == b"x" * SIZE


def test_stopping_ends_a_wait_for_another_process(tmp_path: Path) -> None:
    stop = Stop()
    cache, other = ShardCache(tmp_path, max_bytes=3 * SIZE, stop=stop), ShardCache(tmp_path, max_bytes=3 * SIZE)
    begun, ended = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        ended.wait(240)

    holder = threading.Thread(target=lambda: other.open(entry(0), slow).close())
    holder.start()
    assert begun.wait(60)
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    with pytest.raises(ShardError, match="closed"):
        cache.open(entry(0), Fetches())
    ended.set()
    holder.join()


@pytest.mark.parametrize("content", [b"x" * (SIZE // 2), b"x" * (SIZE + 1)])
def test_a_file_of_another_size_is_fetched_again(tmp_path: Path, content: bytes) -> None:
    cache, fetch = ShardCache(tmp_path, max_bytes=3 * SIZE), Fetches()
    read(cache, 0, fetch)
    (tmp_path / f"{entry(0).sha256}.tar").write_bytes(content)
    assert read(cache, 0, fetch) == b"x" * SIZE and fetch.count == 2


def test_what_an_ended_process_left_of_a_shard_does_not_count_beside_it(tmp_path: Path) -> None:
    (tmp_path / f"{entry(0).sha256}.part").write_bytes(b"y" * SIZE)
    cache = ShardCache(tmp_path, max_bytes=SIZE)
    cache.open(entry(0), Fetches(), patience_seconds=0).close()
    assert whole_files(tmp_path) == {entry(0).sha256}


def test_a_full_disk_makes_room_and_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = os.posix_fallocate

    def with_room_for_two(descriptor: int, offset: int, size: int) -> None:
        if len(whole_files(tmp_path)) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", with_room_for_two)
    cache, fetch = ShardCache(tmp_path, max_bytes=10 * SIZE), Fetches()
    for number in (0, 1, 2):
        read(cache, number, fetch)
    assert whole_files(tmp_path) == {entry(number).sha256 for number in (1, 2)}
    held = [cache.open(entry(number), fetch) for number in (1, 2)]
    with pytest.raises(StorageError, match=r"no room .* within cache_gb .* and the disk .* another cache_dir"):
        cache.open(entry(3), fetch, patience_seconds=0)
    for file in held:
        file.close()


def test_what_the_system_refuses_names_the_folder(tmp_path: Path) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StorageError, match=rf"{tmp_path}: shards can't be kept there: .*; .*cache_dir"):
        ShardCache(tmp_path, max_bytes=SIZE).open(entry(0), failing)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=rf"{tmp_path}/file/shards: shards can't be kept there"):
        ShardCache(tmp_path / "file/shards", max_bytes=SIZE)
