"""A cache that several processes share: forks and killed ones hold nobody up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from loader.cached import SIZE, Fetches, entry, read, whole_files

from vidpipe.files import FOLDER_LOCK, LockedFile, folder_lock
from vidpipe.loader.remote.cache import ShardCache


def test_a_fork_keeps_none_of_its_parents_locks_and_no_number_of_its_files(tmp_path: Path) -> None:
    """Forked while a shard is fetched, another is in use and a folder is locked, as it may happen to a `DataLoader`'s worker."""
    cache, folder = ShardCache(tmp_path / "cache", max_bytes=2 * SIZE), tmp_path / "folder"
    begun, forked, opened = threading.Event(), threading.Event(), list[int]()
    folder.mkdir()

    def slow(descriptor: int) -> None:
        begun.set()
        forked.wait(60)
        os.pwrite(descriptor, b"x" * SIZE, 0)

    held = cache.open(entry(1), Fetches())
    fetcher = threading.Thread(target=lambda: opened.append(len(read(cache, 0, slow))), daemon=True)
    fetcher.start()
    assert begun.wait(60)
    parents_end, childs_end = os.pipe()[::-1]
    is_forked, says_so = os.pipe()
    with folder_lock(folder):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(says_so, b"x")
                os.close(parents_end)
                taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
                held.close()
                del held
                code = len([os.fstat(number) for number in taken]) - 20
                os.read(childs_end, 1)  # until the parent closes its end
            finally:
                os._exit(code)
    os.close(childs_end)
    os.close(says_so)
    os.read(is_forked, 1)  # until then the child has whatever its parent had
    os.close(is_forked)
    forked.set()
    fetcher.join(60)
    assert opened == [SIZE]
    LockedFile(folder / FOLDER_LOCK, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB).close()
    held.close()
    for number in (2, 3):
        cache.open(entry(number), Fetches(), patience_seconds=0).close()
    assert whole_files(tmp_path / "cache") == {entry(2).sha256, entry(3).sha256}
    os.close(parents_end)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_KILLED_WHILE_FETCHING = """
import os, sys
from pathlib import Path
from loader.cached import SIZE, entry
from vidpipe.loader.remote.cache import ShardCache

def slow(descriptor):
    os.pwrite(descriptor, b"y" * 10, 0)
    print("begun", flush=True)
    sys.stdin.read()  # until the test ends

ShardCache(Path(sys.argv[1]), max_bytes=3 * SIZE).open(entry(0), slow)
"""


def test_a_process_killed_while_fetching_holds_nobody_up(tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED_WHILE_FETCHING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{repository / 'tests'}"},
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    cache, fetch = ShardCache(tmp_path, max_bytes=3 * SIZE), Fetches()
    waiter = threading.Thread(target=lambda: read(cache, 0, fetch))
    waiter.start()
    time.sleep(0.2)
    assert waiter.is_alive() and fetch.count == 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    waiter.join(60)
    assert not waiter.is_alive()
    assert fetch.count == 1 and read(cache, 0, fetch) == b"x" * SIZE
    # What a killed process left of a shard that nobody wants any more goes as soon as there has to be room.
    (tmp_path / f"{entry(9).sha256}.part").write_bytes(b"y" * SIZE)
    read(cache, 1, fetch)
    assert not list(tmp_path.glob("*.part"))
