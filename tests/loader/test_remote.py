"""Shards on a local S3 server: the same clips as from disk, in a bounded cache that is shared."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loader.processes import run_loader
from loader.remote import LOADER, WINDOW, assert_equal, clips
from waiting import wait_until

import vidpipe
from vidpipe.errors import MissingExtraError, ShardError, UsageError
from vidpipe.loader.remote import folder as remote

pytestmark = pytest.mark.timeout(240)


def cached(folder: Path) -> int:
    """Bytes of the shards in the cache at one moment: looked at again until nothing came or went meanwhile."""
    while True:
        shards = sorted((folder / "shards").iterdir())
        with contextlib.suppress(FileNotFoundError):
            size = sum(path.stat().st_size for path in shards)
            if sorted((folder / "shards").iterdir()) == shards:
                return size


def test_a_url_gives_what_the_folder_gives(bucket: str, motion_shards: Path, tmp_path: Path, requests: Any) -> None:
    assert_equal(clips(bucket, epochs=2), clips(motion_shards, epochs=2, shuffle="windowed"))
    fetched = requests()
    shards = [path.name for path in (motion_shards / "train").glob("*.tar")]
    assert all(fetched[name] == 1 for name in [*shards, "samples.parquet"])
    clips(f"{bucket}/train")
    again = requests() - fetched
    assert not any(again[name] for name in [*shards, "samples.parquet"])


def test_what_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"s3://.*/motion: no split 'test'; there are: train, val"):
        vidpipe.Loader(bucket, split="test")
    with pytest.raises(ShardError, match=r"s3://.*/absent: no shards here"):
        vidpipe.Loader(f"{bucket}/absent")
    with pytest.raises(UsageError, match="nosuch://"):
        vidpipe.Loader("nosuch://bucket/x")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # so that it can't be imported where it is installed
    with pytest.raises(MissingExtraError, match="gcsfs"):
        vidpipe.Loader("gs://bucket/x")


def test_the_cache_stays_within_its_bound(bucket: str, motion_shards: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in (motion_shards / "train").glob("*.tar")]
    bound = 3 * max(sizes)
    assert bound < sum(sizes)
    largest = 0
    options = vidpipe.LoaderOptions(**WINDOW, cache_gb=bound / 1e9)
    with vidpipe.Loader(bucket, options=options, **LOADER) as loader:
        found = []
        for _ in range(3):
            for batch in loader:
                found.append((batch.key, batch.video))
                largest = max(largest, cached(tmp_path / "cache"))
    assert 0 < largest <= bound
    assert_equal(found, clips(motion_shards, epochs=3, **WINDOW))


def test_a_cache_that_is_too_small_for_the_order_is_refused(bucket: str, motion_shards: Path) -> None:
    with pytest.raises(UsageError, match=r"cache_gb: got 0.001, expected at least 0.0\d+.* take shuffle='windowed'"):
        clips(bucket, shuffle="global", cache_gb=0.001)
    largest = max(path.stat().st_size for path in (motion_shards / "train").glob("*.tar"))
    with pytest.raises(UsageError, match=r"3 x shuffle_window = 3 shards of 2 MB.*smaller shuffle_window"):
        clips(bucket, **WINDOW, cache_gb=(3 * largest - 1) / 1e9)


def test_the_next_window_is_fetched_while_this_one_is_read(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = vidpipe.LoaderOptions(**WINDOW, prefetch_batches=0)
    with vidpipe.Loader(bucket, options=options, **{**LOADER, "batch_size": 1}) as loader:
        iterator = iter(loader)
        next(iterator)
        wait_until(lambda: len(list((tmp_path / "cache/shards").glob("*.tar"))) >= 2)
        time.sleep(0.2)
        assert len(list((tmp_path / "cache/shards").glob("*.tar"))) == 2
        iterator.close()


def test_an_epoch_of_slow_reads_is_whole(bucket: str, motion_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = remote.RemoteFolder._piece

    def slow(*arguments: Any) -> bytes:
        time.sleep(0.05)
        return read(*arguments)

    monkeypatch.setattr(remote, "PIECE_BYTES", 1 << 19)
    monkeypatch.setattr(remote.RemoteFolder, "_piece", slow)
    assert_equal(clips(bucket, **WINDOW), clips(motion_shards, **WINDOW))


def test_a_remote_and_a_local_data_set_can_be_mixed(bucket: str, motion_shards: Path) -> None:
    weights = {bucket: 1.0, str(motion_shards / "val"): 1.0}
    found = [key for keys, _ in clips(weights, **WINDOW) for key in keys]
    expected = {str(motion_shards): 1.0, str(motion_shards / "val"): 1.0}
    assert found == [key for keys, _ in clips(expected, **WINDOW) for key in keys]


def test_any_file_system_of_fsspec_will_do(motion_shards: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(motion_shards), "/vidpipe-test", recursive=True)
    found = clips("memory://vidpipe-test", cache_dir=tmp_path / "cache")
    assert_equal(found, clips(motion_shards, shuffle="windowed"))
    assert_equal(clips(f"file://{motion_shards}"), clips(motion_shards))


@pytest.mark.slow
def test_two_processes_share_the_cache(bucket: str, motion_shards: Path, tmp_path: Path, requests: Any) -> None:
    task = {"loader": LOADER, "options": WINDOW, "slow_fetch": 0.05}
    ranks = run_loader(bucket, tmp_path, task, processes=2)
    assert len({key for rank in ranks for line in rank for key in line["keys"]}) == 32
    pieces = {p.name: -(-p.stat().st_size // (1 << 18)) for p in (motion_shards / "train").glob("*.tar")}
    assert {name: count for name, count in requests().items() if name in pieces} == pieces
