"""What may fail while shards are fetched: reads, shards, the cache, or the process; and closing meanwhile."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loader.damage import flipped
from loader.processes import batches, start_loader
from loader.remote import LOADER, WINDOW, assert_equal, clips
from waiting import wait_until

import vidpipe
from vidpipe.errors import ShardError, StorageError, UsageError
from vidpipe.loader.remote import folder as remote

pytestmark = pytest.mark.timeout(240)

ANY_DAMAGE = vidpipe.LoaderOptions(on_bad="skip", max_bad=1.0)


def shards_without(folder: Path, keys: list[str]) -> list[str]:
    """Names of the shards that hold none of these samples."""
    names = []
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as archive:
            if not {Path(name).stem for name in archive.getnames()} & {*keys}:
                names.append(shard.name)
    return names


def overwrite(url: str, name: str, content: bytes) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe_file(f"{url.removeprefix('s3://')}/{name}", content)


def fail_every(number: int, monkeypatch: pytest.MonkeyPatch, *, times: float) -> list[str]:
    """Let every so-many-th piece of a shard fail in the file system so many times; each failure is in the list that is returned.

    Pieces are numbered as they are first asked for, and each fails by itself, whatever other threads read between its tries.
    """
    import s3fs

    read = s3fs.S3FileSystem._cat_file
    tries: Counter[tuple[str, int]] = Counter()
    numbers: dict[tuple[str, int], int] = {}
    failed: list[str] = []

    async def failing(files: Any, path: str, *arguments: Any, **named: Any) -> bytes:
        if path.endswith(".tar"):
            piece = (path, named["start"])
            tries[piece] += 1
            if numbers.setdefault(piece, len(numbers) + 1) % number == 0 and tries[piece] <= times:
                failed.append(path)
                raise ConnectionResetError("injected")
        return bytes(await read(files, path, *arguments, **named))

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", failing)
    s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the methods that it was made with
    return failed


def test_failing_reads_are_tried_again(bucket: str, motion_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 1 << 18)
    failed = fail_every(3, monkeypatch, times=3)
    assert_equal(clips(bucket), clips(motion_shards, shuffle="windowed"))
    assert len(failed) > 5


def test_an_index_that_is_not_the_manifests_is_refused_and_not_kept(
    bucket: str, motion_shards: Path, tmp_path: Path
) -> None:
    index = (motion_shards / "train" / "samples.parquet").read_bytes()
    for content, message in (
        (index[:-1], "samples.parquet: .* bytes, but the manifest"),
        (b"x" + index[1:], "samples.parquet: .* SHA-256"),
    ):
        overwrite(bucket, "train/samples.parquet", content)
        with pytest.raises(ShardError, match=message):
            vidpipe.Loader(bucket, **LOADER)
    overwrite(bucket, "train/samples.parquet", index)
    vidpipe.Loader(bucket, **LOADER).close()
    for copy in (tmp_path / "cache/splits").glob("*/*.*"):  # damaged there, they are fetched again
        copy.write_bytes(flipped(copy.read_bytes()))
    vidpipe.Loader(bucket, **LOADER).close()
    (copy,) = (tmp_path / "cache/splits").glob("*/samples.parquet")
    assert copy.read_bytes() == index


def test_reads_that_never_succeed_end_with_the_address(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_every(1, monkeypatch, times=math.inf)
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    message = r"s3://\S+\.tar: can't be read, 8 times: ConnectionResetError: injected"
    for options in (vidpipe.LoaderOptions(), ANY_DAMAGE):
        with vidpipe.Loader(bucket, options=options, **LOADER) as loader:
            with pytest.raises(StorageError, match=message):
                list(loader)
            assert loader.stats().bad_samples == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-512], r"bytes, but the manifest says \d+"),
        (lambda content: content[:999] + b"x" + content[1000:], "another SHA-256 than the manifest says"),
        (None, "missing; upload"),
    ],
)
def test_a_shard_that_arrives_otherwise_is_refused_and_not_kept(
    bucket: str, motion_shards: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    shard = motion_shards / "train" / "00001.tar"
    if damage:
        overwrite(bucket, "train/00001.tar", damage(shard.read_bytes()))
    else:
        import s3fs

        s3fs.S3FileSystem().rm(f"{bucket.removeprefix('s3://')}/train/00001.tar")
    with vidpipe.Loader(bucket, **LOADER) as loader, pytest.raises(ShardError, match=rf"00001\.tar: .*{message}"):
        list(loader)
    options = vidpipe.LoaderOptions(on_bad="skip", max_bad=0.5)
    with vidpipe.Loader(bucket, options=options, **LOADER) as loader:
        kept = [k for batch in loader for k, padding in zip(batch.key, batch.is_padding, strict=True) if not padding]
        assert 16 < len(kept) < 32 and loader.stats().bad_samples == 32 - len(kept)
    # What was being fetched when the loader was closed may go a little later; whole shards come no more.
    wait_until(lambda: not list((tmp_path / "cache/shards").glob("*.part")))
    assert len(list((tmp_path / "cache/shards").glob("*.*"))) == len(list((motion_shards / "train").glob("*.tar"))) - 1


@pytest.mark.parametrize("stalls", ["in a read", "before the next try"])
def test_closing_does_not_wait_for_a_slow_fetch_nor_blames_the_shards(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stalls: str
) -> None:
    begun, over, raised = threading.Event(), threading.Event(), []

    def stalled(*_: Any) -> bytes:
        begun.set()
        if stalls == "in a read":
            over.wait()
        raise ConnectionResetError("injected")

    def consume() -> None:
        try:
            list(loader)
        except BaseException as error:
            raised.append(error)

    loader = vidpipe.Loader(bucket, options=ANY_DAMAGE, **LOADER)
    monkeypatch.setattr(remote.RemoteFolder, "_piece", stalled)
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 1000.0)
    consumer = threading.Thread(target=consume)
    consumer.start()
    assert begun.wait(60)
    loader.close()  # the test's time limit is the assertion
    consumer.join()
    assert [type(error) for error in raised] == [UsageError] and "loader: was closed" in str(raised[0])
    # Closing waits no longer than a second for that.
    wait_until(lambda: not list((tmp_path / "cache/shards").glob("*.*")))
    over.set()
    assert loader.stats().bad_samples == 0
    assert not [record for record in caplog.records if record.name == "vidpipe.loader"]


@pytest.mark.parametrize("check", ["crc", "off"])
def test_a_file_damaged_in_the_cache_is_fetched_again(
    bucket: str, motion_shards: Path, tmp_path: Path, requests: Any, caplog: pytest.LogCaptureFixture, check: str
) -> None:
    expected = clips(bucket)
    fetched = requests()
    files = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in (motion_shards / "train").glob("*.tar")}
    flipped, halved = sorted(files)[:2]
    with (tmp_path / f"cache/shards/{flipped}.tar").open("r+b") as stream:
        stream.seek(100_000)
        stream.write(bytes(100_000))
    os.truncate(tmp_path / f"cache/shards/{halved}.tar", files[halved].stat().st_size // 2)
    found = clips(bucket, check=check)
    again = {name for name, count in (requests() - fetched).items() if count and name.endswith(".tar")}
    warned = [record.getMessage() for record in caplog.records if record.name == "vidpipe.loader"]
    damaged = {halved, flipped} if check == "crc" else {halved}
    assert again == {files[name].name for name in damaged} and len(warned) == len(damaged)
    assert all(any(name in line and "fetched again" in line for line in warned) for name in damaged)
    if check == "crc":
        assert_equal(found, expected)


_LEFT_WAITING = """
import contextlib, itertools, sys, threading, time, fsspec, vidpipe
from vidpipe.loader.remote import folder as remote

fsspec.filesystem("memory").put(sys.argv[1], "/data", recursive=True)
loader = vidpipe.Loader("memory://data", size=32, backend="torch", options=vidpipe.LoaderOptions(cache_dir=sys.argv[2]))
calls, waiting = itertools.count(), threading.Semaphore(0)

def stalled(*_):
    waiting.release()
    if next(calls) % 2:  # in a read, or before the next try
        threading.Event().wait()
    raise ConnectionResetError("injected")

remote.RemoteFolder._piece, remote.FIRST_PAUSE_SECONDS = stalled, 1000.0

def consume():
    with contextlib.suppress(Exception):  # a daemon that writes a traceback while the interpreter ends may make it abort
        list(loader)

threading.Thread(target=consume, daemon=True).start()
assert waiting.acquire(timeout=90) and waiting.acquire(timeout=90)
time.sleep(0.2)
"""


def test_an_interpreter_ends_though_shards_are_awaited(motion_shards: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _LEFT_WAITING, str(motion_shards), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_killed_in_mid_download_leaves_a_sound_cache(
    bucket: str, motion_shards: Path, tmp_path: Path
) -> None:
    first_batch, _ = clips(motion_shards, **WINDOW)[0]
    task = {"loader": LOADER, "options": WINDOW, "stalled_shards": shards_without(motion_shards / "train", first_batch)}
    process = start_loader(bucket, tmp_path / "killed", task)
    cache = tmp_path / "cache/shards"
    process.wait_until(lambda: (tmp_path / "killed/stalled").exists() and batches(tmp_path / "killed"))
    process.kill()
    assert list(cache.glob("*.part"))
    assert_equal(clips(bucket, **WINDOW), clips(motion_shards, **WINDOW))
    wait_until(lambda: not list(cache.glob("*.part")))
