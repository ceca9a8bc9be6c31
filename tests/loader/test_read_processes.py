"""Processes that read for a loader: the same clips as by threads, the same word of damage, and nothing left of them afterwards."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from loader.damage import copied, garbage
from waiting import wait_until

import vidpipe
from vidpipe.errors import BadSampleError, ShardError, UsageError, VidpipeError
from vidpipe.loader import LoaderOptions
from vidpipe.loader.reading.process_pool import ReadProcesses

pytest.importorskip("nvidia.dali", reason="DALI is not installed")


@pytest.fixture
def decoded_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `decode="gpu"`, DALI decodes `jpeg` on the CPU as it would on a GPU."""
    monkeypatch.setattr(
        "vidpipe.loader.engines.backend.device_codecs",
        lambda decode, backend, device: frozenset({"jpeg"} if decode == "gpu" else ()),
    )


def loader(folder: Path | list[Path], readers: str, **settings: object) -> vidpipe.Loader:
    options = LoaderOptions(readers=readers, threads=2, **settings.pop("options", {}))
    settings = {"batch_size": 8, "size": 48, "seed": 3, "backend": "dali", **settings}
    return vidpipe.Loader(folder, options=options, **settings)


def read_processes() -> set[int]:
    """The processes that read for loaders of this one."""
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            command = Path(f"/proc/{child}/cmdline")
            if command.exists() and b"vidpipe.loader.reading.process" in command.read_bytes():
                found.add(int(child))
    return found


def check_alike(folder: Path | list[Path], **settings: object) -> None:
    with loader(folder, "threads", **settings) as theirs, loader(folder, "processes", **settings) as ours:
        assert read_processes()
        for batch, expected in zip(ours, theirs, strict=True):
            assert batch.clip_key == expected.clip_key and torch.equal(batch.is_padding, expected.is_padding)
            assert torch.equal(batch.video, expected.video) and torch.equal(batch.label, expected.label)
        assert [str(error) for error in ours.errors] == [str(error) for error in theirs.errors]
        assert ours.stats().bytes_read > 0


@pytest.mark.parametrize("codec", ["tensor", "jpeg", "mp4"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"augment": "train", "frames": 8, "batch_size": 5}, id="augmented"),
        pytest.param({"augment": "train", "frames": 5, "options": {"clips_per_sample": 2}}, id="two windows of a read"),
        pytest.param({"frames": 4, "options": {"views": (2, 3)}}, id="views"),
    ],
)
def test_batches_are_those_of_threads(codec_shards: dict[str, Path], codec: str, settings: dict[str, object]) -> None:
    check_alike(codec_shards[codec], **settings)


@pytest.mark.usefixtures("decoded_by_the_device")
def test_what_the_device_decodes_is_read_too(codec_shards: dict[str, Path], motion_shards: Path) -> None:
    """Joined to filmstrips, one by one for views, and beside a data set that is read as frames."""
    check_alike(codec_shards["jpeg"], options={"decode": "gpu"})
    check_alike(codec_shards["jpeg"], frames=4, options={"decode": "gpu", "views": (2, 3)})
    check_alike([codec_shards["jpeg"], motion_shards], frames=8, options={"decode": "gpu"})


def test_real_clips_of_several_sizes_as_they_are_stored(real_shards: Path) -> None:
    with loader(real_shards, "threads") as theirs, loader(real_shards, "processes") as ours:
        kept = list(ours.read_batches())
        for batch, expected in zip(kept, theirs.read_batches(), strict=True):
            assert batch.key == expected.key
            assert all(np.array_equal(a, b) for a, b in zip(batch.clips, expected.clips, strict=True))


def test_one_goes_on_where_the_other_was(motion_shards: Path) -> None:
    with loader(motion_shards, "processes", augment="train") as ours:
        for _, batch in zip(range(2), ours, strict=False):
            del batch
        state, expected = ours.state_dict(), [batch.video for batch in ours]
    with loader(motion_shards, "threads", augment="train") as theirs:
        theirs.load_state_dict(state)
        assert torch.equal(torch.cat([batch.video for batch in theirs]), torch.cat(expected))


@pytest.mark.parametrize(("codec", "check"), [("tensor", "crc"), ("jpeg", "crc"), ("jpeg", "off")])
def test_damage_is_told_as_by_threads(codec_shards: dict[str, Path], codec: str, check: str, tmp_path: Path) -> None:
    damage = copied(codec_shards[codec] / "train", tmp_path, sample=11)
    damage.overwrite(garbage)
    with (
        pytest.raises(BadSampleError, match=f"sample {damage.key}: ") as caught,
        loader(damage.folder, "processes", options={"check": check}) as ours,
    ):
        list(ours)
    assert caught.value.key == damage.key
    check_alike(damage.folder, augment="train", options={"check": check, "on_bad": "skip", "max_bad": 0.5})


def test_what_was_damaged_once_is_not_read_again(motion_shards: Path, tmp_path: Path) -> None:
    damage = copied(motion_shards / "train", tmp_path, sample=11)
    sound = damage.shard.read_bytes()
    damage.overwrite(garbage)
    skip = {"on_bad": "skip", "max_bad": 0.5, "prefetch_across_epochs": False}
    with loader(damage.folder, "processes", augment="train", options=skip) as ours:
        list(ours)
        with damage.shard.open("r+b") as file:  # the same file, which the processes have open
            file.write(sound)
        keys = {
            key for batch in ours for key, is_padding in zip(batch.key, batch.is_padding, strict=True) if not is_padding
        }
    assert len(ours.errors) == 1 and len(keys) == 31 and damage.key not in keys


def test_a_missing_shard_is_told_as_by_threads(motion_shards: Path, tmp_path: Path) -> None:
    damage = copied(motion_shards / "train", tmp_path, sample=11)
    damage.shard.unlink()
    with pytest.raises(ShardError, match="can't be opened"), loader(damage.folder, "processes") as ours:
        list(ours)
    check_alike(damage.folder, augment="train", options={"on_bad": "skip", "max_bad": 0.9})


def kill_read_processes() -> None:
    for process in read_processes():
        os.kill(process, signal.SIGKILL)


def test_what_a_process_was_killed_over_another_one_reads(
    motion_shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"augment": "train", "options": {"prefetch_batches": 0}}
    with loader(motion_shards, "threads", **settings) as theirs, loader(motion_shards, "processes", **settings) as ours:
        for number, (batch, expected) in enumerate(zip(ours, theirs, strict=True)):
            assert batch.clip_key == expected.clip_key and torch.equal(batch.video, expected.video)
            if number == 0:
                kill_read_processes()
        assert not ours.errors
    told = [record.getMessage() for record in caplog.records if record.name == "vidpipe.loader"]
    assert told and all(
        "a process that reads died (SIGKILL); another one reads its clips again" in line for line in told
    )
    assert not read_processes()


def spawn_no_reader(main: object, descriptors: object) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    theirs.close()
    return subprocess.Popen(["false"]), ours


def test_where_they_dont_start_threads_read_unless_processes_are_asked_for(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vidpipe.loader.reading.process_pool.spawn", spawn_no_reader)
    with pytest.raises(UsageError, match=r"readers: a process that reads can't start \(exit code 1\)"):
        loader(motion_shards, "processes")
    monkeypatch.setattr(  # as on a GPU
        "vidpipe.loader.workers._read_processes",
        lambda source, options, setup: ReadProcesses(source.read_plan, number=setup.threads),
    )
    with loader(motion_shards, "auto") as ours:
        assert ours.readers == "threads" and len(list(ours.read_batches())) == len(ours)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "vidpipe.loader"]
    assert told.endswith("threads read instead of processes")


def test_clips_over_which_processes_die_again_and_again_are_an_error_and_no_hang(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loader(motion_shards, "processes", augment="train", options={"prefetch_batches": 0}) as ours:
        batches = iter(ours)
        next(batches)
        monkeypatch.setattr("vidpipe.loader.reading.process_pool.spawn", spawn_no_reader)
        kill_read_processes()
        with pytest.raises(
            VidpipeError, match=r"died \(exit code 1\), and so did the one before it, over the same clips"
        ):
            list(batches)


@pytest.mark.parametrize("end", [vidpipe.Loader.close, lambda ours: None], ids=["closed", "dropped"])
def test_nothing_is_left_of_a_loader(motion_shards: Path, end: Callable[[vidpipe.Loader], None]) -> None:
    def use() -> None:
        ours = loader(motion_shards, "processes")
        next(iter(ours))
        wait_until(lambda: len(read_processes()) == 2)
        end(ours)
        del ours
        wait_until(lambda: gc.collect() >= 0 and not read_processes())

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    use()  # libraries open files of their own when they are first used
    files = open_files()
    use()
    wait_until(lambda: gc.collect() >= 0 and open_files() <= files)


_LEFT_BEHIND = """
import os, signal, sys, time, vidpipe

loader = vidpipe.Loader(
    sys.argv[1], size=48, batch_size=4, backend="dali", options=vidpipe.LoaderOptions(readers="processes", threads=2)
)
next(iter(loader))
if os.fork() == 0:
    time.sleep(600)  # a fork has the pipes, too
print(*[child for child in open(f"/proc/self/task/{os.getpid()}/children").read().split()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""  # at the level of a script: no `if __name__ == "__main__"` is needed


def test_they_end_with_a_parent_that_is_killed_even_where_it_was_forked(motion_shards: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _LEFT_BEHIND, str(motion_shards)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        children = [int(child) for child in parent.stdout.readline().split()]
        parent.wait(60)
        readers = [child for child in children if b"read_process" in command_line(child)]
        try:
            assert len(children) == 3
            wait_until(lambda: not any(command_line(reader) for reader in readers))
        finally:
            for child in children:
                if command_line(child):
                    os.kill(child, signal.SIGKILL)


def command_line(process: int) -> bytes:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_where_they_cant_be_had_it_is_said(motion_shards: Path, bucket: str) -> None:
    with pytest.raises(UsageError, match=r"readers: got 'processes' with backend 'torch' on the CPU"):
        loader(motion_shards, "processes", backend="torch")
    with pytest.raises(UsageError, match=r"readers: got 'processes' for s3://.* take readers='threads'"):
        loader(bucket, "processes")
    with pytest.raises(UsageError, match=r"readers: got 'fork'"):
        LoaderOptions(readers="fork")
    assert not read_processes()


def test_memory_that_cant_be_locked_for_a_gpu_is_told_at_once(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(memory: object) -> None:
        raise UsageError("readers: its pages can't be locked")

    monkeypatch.setattr("vidpipe.loader.workers.page_lock_for", lambda device: refuse)
    with pytest.raises(UsageError, match="can't be locked"):
        loader(motion_shards, "processes")
    assert not read_processes()


def test_where_the_plan_cant_be_shared_the_memory_is_closed(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = mock.Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr("vidpipe.loader.reading.process_pool.share", failing)
    with pytest.raises(UsageError, match=r"can't be started \(No space left on device\)") as caught:
        loader(motion_shards, "processes")
    gc.collect()  # of what other tests had
    files = [str(path.resolve()) for path in Path("/proc/self/fd").iterdir()]
    assert (
        caught and sum("vidpipe-frames" in name for name in files) == 1
    )  # the mapping's, which the error's frames still hold


def test_a_fork_that_ends_takes_nothing_from_its_parent(motion_shards: Path) -> None:
    with loader(motion_shards, "processes") as ours:
        batch = next(iter(ours.read_batches()))
        before = [clip.copy() for clip in batch.clips]
        child = os.fork()
        if child == 0:
            del batch
            os._exit(0)
        os.waitpid(child, 0)
        assert all(np.array_equal(clip, was) for clip, was in zip(batch.clips, before, strict=True))


def test_batches_that_are_kept_take_memory_and_no_open_files(motion_shards: Path) -> None:
    with loader(motion_shards, "processes", batch_size=1, augment="train") as ours:
        kept = [batch.clips[0] for batch in ours.read_batches()]
        files = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            kept += [batch.clips[0] for batch in ours.read_batches()]
        assert len(kept) == 128 and len(list(Path("/proc/self/fd").iterdir())) <= files
