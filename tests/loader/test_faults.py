"""Damaged shards of every kind: reported with shard and key, passed over where that is allowed, never a hang."""

from __future__ import annotations

import gc
import logging
import os
import resource
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from loader.damage import copied, flipped, garbage, unknown_codec

import vidpipe
from vidpipe.errors import BadSampleError, ShardError, StorageError
from vidpipe.files import OpenFile
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.open_shards import open_shard_file
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.manifest import load_manifest

pytestmark = pytest.mark.timeout(240)  # with the making of the shards, on a machine that is busy

SKIP = vidpipe.LoaderOptions(on_bad="skip", max_bad=0.5)


@pytest.fixture(scope="module")
def codec_shards(
    motion_shards: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> Callable[[str], Path]:
    """The `motion` data set's train split in several small shards, by codec."""
    made = {"tensor": motion_shards / "train"}

    def make(codec: str) -> Path:
        if codec not in made:
            out = tmp_path_factory.mktemp(codec) / "shards"
            size = {"jpeg": 0.2, "mp4": 0.26}[codec]
            options = ("--split", "train", "--shard-size-mb", size, "--codec", codec)
            videos = ("--source", motion_shards / "videos", "--set", "train_videos=4", "--set", "val_videos=2")
            assert session_command("prep", "motion", *videos, "--out", out, *options) == 0
            made[codec] = out / "train"
        return made[codec]

    return make


def keys(loader: vidpipe.Loader) -> list[str]:
    """The keys of an epoch that aren't padding."""
    return [key for batch in loader for key, padding in zip(batch.key, batch.is_padding, strict=True) if not padding]


@pytest.mark.parametrize("codec", ["tensor", "jpeg", "mp4"])
@pytest.mark.parametrize("change", [flipped, garbage])
def test_changed_bytes_stop_with_shard_and_key(
    codec_shards: Callable[[str], Path], tmp_path: Path, codec: str, change: Callable[[bytes], bytes], backend: str
) -> None:
    damage = copied(codec_shards(codec), tmp_path)
    damage.overwrite(change)
    with vidpipe.Loader(damage.folder, size=32, batch_size=4, backend=backend) as loader:
        with pytest.raises(BadSampleError, match=f"{damage.shard.name}: sample {damage.key}: .*CRC-32") as caught:
            keys(loader)
        assert (caught.value.shard, caught.value.key) == (damage.shard.name, damage.key)
        assert loader.stats().bad_samples == 1
        with pytest.raises(BadSampleError, match=damage.key):  # and again, when it is tried again
            keys(loader)


@pytest.mark.parametrize(("codec", "change"), [("jpeg", garbage), ("mp4", garbage), ("mp4", unknown_codec)])
def test_garbage_that_nothing_checks_is_found_by_the_decoder(
    codec_shards: Callable[[str], Path], tmp_path: Path, codec: str, change: Callable[[bytes], bytes], backend: str
) -> None:
    damage = copied(codec_shards(codec), tmp_path)
    damage.overwrite(change)
    options = vidpipe.LoaderOptions(check="off")
    with (
        vidpipe.Loader(damage.folder, size=32, batch_size=4, backend=backend, options=options) as loader,
        pytest.raises(BadSampleError, match=f"{damage.shard.name}: sample {damage.key}: can't be decoded"),
    ):
        keys(loader)


@pytest.mark.parametrize("codec", ["tensor", "jpeg", "mp4"])
def test_damaged_samples_are_skipped_counted_and_logged_once(
    codec_shards: Callable[[str], Path],
    tmp_path: Path,
    codec: str,
    backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage = copied(codec_shards(codec), tmp_path)
    damage.overwrite(garbage)
    with (
        caplog.at_level(logging.WARNING, "vidpipe.loader"),
        vidpipe.Loader(damage.folder, size=32, batch_size=4, backend=backend, options=SKIP) as loader,
    ):
        for _ in range(3):
            assert sorted([*keys(loader), damage.key]) == sorted(damage.index.key.take(range(32)))
        assert loader.stats().bad_samples == 1 and loader.stats().clips == 96
        (error,) = loader.errors
        assert isinstance(error, BadSampleError) and error.key == damage.key
        kept = [error, error.__cause__, error.__context__]
        assert all(link is None or link.__traceback__ is None for link in kept), (
            "a batch's memory stays with the frames"
        )
    warned = [record.message for record in caplog.records if record.name == "vidpipe.loader"]
    assert [damage.key in message for message in warned] == [True]


@pytest.mark.parametrize("kind", ["deleted", "truncated", "unreadable"])
def test_a_lost_shard_is_named_or_skipped_as_a_whole(
    codec_shards: Callable[[str], Path], tmp_path: Path, kind: str, backend: str
) -> None:
    damage = copied(codec_shards("tensor"), tmp_path)
    lost = set(damage.index.key.take((damage.index.shard == 1).nonzero()[0]))
    if kind == "truncated":
        damage.shard.write_bytes(damage.shard.read_bytes()[:-512])
    else:
        damage.shard.unlink()
    if kind == "unreadable":
        damage.shard.mkdir()
    with (
        vidpipe.Loader(damage.folder, size=32, backend=backend) as loader,
        pytest.raises(ShardError, match=damage.shard.name),
    ):
        keys(loader)
    with vidpipe.Loader(damage.folder, size=32, batch_size=4, backend=backend, options=SKIP) as loader:
        for _ in range(2):
            assert set(keys(loader)) == set(damage.index.key.take(range(32))) - lost
        assert loader.stats().bad_samples == len(lost) and len(loader.errors) == 1
        assert damage.shard.name in str(loader.errors[0])


def test_more_damage_than_allowed_stops_even_when_skipping(
    codec_shards: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    damage = copied(codec_shards("tensor"), tmp_path)
    damage.shard.unlink()
    options = vidpipe.LoaderOptions(on_bad="skip")
    message = r"of 32 samples can't be read, more than max_bad \(5%\) allows; .*00001.tar.*vidpipe verify"
    with (
        vidpipe.Loader(damage.folder, size=32, backend=backend, options=options) as loader,
    ):
        for _ in range(3):  # whoever tries again gets no further
            with pytest.raises(ShardError, match=message):
                keys(loader)
            assert loader.epoch == 0


def test_without_any_sound_sample_it_ends_with_an_error(codec_shards: Callable[[str], Path], tmp_path: Path) -> None:
    damage = copied(codec_shards("tensor"), tmp_path)
    for shard in damage.index.shards:
        (damage.folder / shard).unlink()
    options = vidpipe.LoaderOptions(on_bad="skip", max_bad=1.0)
    with (
        vidpipe.Loader(damage.folder, size=32, backend="torch", options=options) as loader,
        pytest.raises(ShardError, match="no sound sample"),
    ):
        keys(loader)


def test_the_same_stands_in_for_a_damaged_sample_every_time(
    codec_shards: Callable[[str], Path], tmp_path: Path
) -> None:
    damage = copied(codec_shards("tensor"), tmp_path)
    damage.shard.unlink()

    def run(*, batch_size: int, threads: int) -> list[str]:
        options = vidpipe.LoaderOptions(on_bad="skip", max_bad=0.5, threads=threads)
        with vidpipe.Loader(
            damage.folder, size=32, batch_size=batch_size, augment="train", backend="torch", options=options
        ) as loader:
            return [key for batch in loader for key in batch.key]

    assert run(batch_size=4, threads=1) == run(batch_size=7, threads=4)


@pytest.mark.parametrize("kind", ["deleted", "truncated"])
def test_a_shard_lost_while_it_is_in_use(
    codec_shards: Callable[[str], Path], tmp_path: Path, kind: str, backend: str
) -> None:
    """A deleted file goes on to be read where it is open; a truncated one is found at its first missing byte."""
    damage = copied(codec_shards("tensor"), tmp_path)
    options = vidpipe.LoaderOptions(on_bad="skip", max_bad=0.9, prefetch_batches=0)
    with vidpipe.Loader(damage.folder, size=32, batch_size=1, backend=backend, options=options) as loader:
        keys(loader)  # opens all shards
        iterator = iter(loader)
        seen = list(next(iterator).key)
        if kind == "deleted":
            damage.shard.unlink()
        else:
            damage.shard.write_bytes(b"")
        for batch in iterator:
            seen += [] if batch.is_padding.any() else batch.key
        errors = loader.errors
    if kind == "deleted":
        assert sorted(seen) == sorted(damage.index.key.take(range(32))) and not errors
    else:
        assert errors and all("the shard was truncated while in use" in str(error) for error in errors)
        assert {error.key for error in errors if isinstance(error, BadSampleError)} == set(
            damage.index.key.take(range(32))
        ) - set(seen)


def test_shards_that_are_opened_at_once_are_no_more_than_may_be_open(motion_shards: Path) -> None:
    """They would stay until another one is opened, and in a full cache that other one would wait for them in vain."""
    folder = motion_shards / "train"
    manifest, index = load_manifest(folder), load_index(folder, load_manifest(folder))
    sizes = {entry.name: entry.bytes for entry in manifest.shards}
    together, opened = threading.Barrier(3), list[OpenFile]()

    def open_together(name: str) -> OpenFile:
        together.wait(60)
        opened.append(open_shard_file(folder / name, sizes[name]))
        return opened[-1]

    reader = ClipReader(folder, manifest, index, open_shard=open_together, max_open=1)
    samples = [int((index.shard == shard).nonzero()[0][0]) for shard in range(3)]
    with ThreadPoolExecutor(3) as threads:
        list(
            threads.map(lambda sample: reader.read(sample, [0], np.empty(index.frame_bytes(sample), np.uint8)), samples)
        )
    left = [weakref.ref(file) for file in opened]
    opened.clear()
    gc.collect()
    assert len(left) == 3 and sum(file() is not None for file in left) == 1


@contextmanager
def files_left_to_open(number: int) -> Iterator[None]:
    """Let this process open no more than so many files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208  names, of which one is gone by now
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 100, limits[0]), limits[1]))
    held: list[int] = []
    try:
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(number):
            os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _read_with_files_left(motion_shards: Path, free: int) -> None:
    with vidpipe.Loader(motion_shards, size=32, batch_size=4, backend="torch") as loader:
        keys(loader)  # so that nothing has to be imported when no file can be opened
    options = vidpipe.LoaderOptions(on_bad="skip", max_bad=1.0, threads=1)
    with vidpipe.Loader(motion_shards, size=32, batch_size=4, backend="torch", options=options) as loader:
        with files_left_to_open(free):
            if free:
                assert len(set(keys(loader))) == 32
            else:
                with pytest.raises(StorageError, match=r"\.tar: can't be opened: Too many open files; .*ulimit -n"):
                    keys(loader)
        assert loader.stats().bad_samples == 0 and not loader.errors
        loader.set_epoch(1)
        assert len(set(keys(loader))) == 32


@pytest.mark.parametrize("free", [0, 2])
def test_a_limit_on_open_files_costs_no_sample(motion_shards: Path, free: int) -> None:
    """With a few files left, shards are closed for others; with none it ends, as it isn't the shards' fault.

    In a process where nothing that other tests left closes files meanwhile, or needs some.
    """
    Forked(_read_with_files_left, motion_shards, free).finish()
