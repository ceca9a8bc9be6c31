"""Several runs at one output folder, as real processes: those with one plan share the work, others are refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prep.interrupted_runs import command, files, run

from vidpipe.errors import ShardError
from vidpipe.prep.decoder import Decoder
from vidpipe.prep.plan import make_plan
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.prep.run import PrepJob, prepare
from vidpipe.prep.shard_job import ShardTask, VideoDone, make_shard
from vidpipe.shards.layout import PARTS_FOLDER
from vidpipe.shards.locks import locked, present


@dataclass
class _Meanwhile:
    """Does something when a run knows what it has to make, and before it makes it."""

    act: Callable[[], None]
    videos: list[str] = field(default_factory=list)
    begun: list[tuple[int, int]] = field(default_factory=list)

    def found(self, listing: object) -> None:
        pass

    def start(self, *, videos: int, done: int) -> None:
        self.begun.append((videos, done))
        self.act()

    def video(self, done: VideoDone) -> None:
        self.videos.append(done.path)

    def waiting(self, shards: int) -> None:
        pass


def _job(source: Path, out: Path, *overrides: str) -> PrepJob:
    """What `command(source, out, shard_size_mb=2)` does."""
    recipe, options = load_prep_recipe("motion", ["train_videos=4", "val_videos=2", "shard_size_mb=2.0", *overrides])
    return PrepJob(name="motion", recipe=recipe, options=options, source=source, out=out, workers=1)


def test_a_run_with_other_options_is_refused_while_one_is_at_work(motion_shards: Path, tmp_path: Path) -> None:
    source, out = motion_shards / "videos", tmp_path / "out"

    def other_runs() -> None:
        for options in (("--stride", "3"), ("--split", "val", "--limit", "3")):
            refused = run(command(source, out, *options, shard_size_mb=2))
            assert refused.returncode == 1 and "Traceback" not in refused.stderr
            assert f"{out}: another run is at work there, with other videos, weights or options" in refused.stderr
        helper = run(command(source, out, "--split", "val", "--task", "1/2", "--workers", "2", shard_size_mb=2))
        assert helper.returncode == 0 and "left to other tasks" in helper.stdout, helper.stderr

    told = _Meanwhile(other_runs)
    result = prepare(_job(source, out), progress=told)
    assert result.made_shards == 5 and len(told.videos) < 48, "the other run made one shard of the two of val"
    assert files(out) == files(motion_shards)
    assert not list(out.rglob(PARTS_FOLDER))


def test_a_run_that_comes_late_redoes_nothing_and_clears_up(motion_shards: Path, tmp_path: Path) -> None:
    source, out = motion_shards / "videos", tmp_path / "out"

    def whole_run() -> None:
        assert run(command(source, out, shard_size_mb=2)).returncode == 0
        assert len(list(out.glob("*/manifest.json"))) == 2

    told = _Meanwhile(whole_run)
    result = prepare(_job(source, out), progress=told)
    assert not told.videos and result.made_shards == 0 and set(result.splits) == {"train", "val"}
    assert files(out) == files(motion_shards)
    assert not list(out.rglob(PARTS_FOLDER))


def test_a_shard_that_another_run_gives_up_is_made_after_all(motion_shards: Path, tmp_path: Path) -> None:
    source, out = motion_shards / "videos", tmp_path / "out"
    other, waited_for = ExitStack(), list[int]()

    class Waiting(_Meanwhile):
        def waiting(self, shards: int) -> None:
            waited_for.append(shards)
            other.close()

    told = Waiting(lambda: other.enter_context(locked(out / "val", "00001.tar", wait=False)))
    result = prepare(replace(_job(source, out), splits=("val",)), progress=told)
    assert waited_for == [1] and result.made_shards == 2 and len(told.videos) == 16
    assert files(out) == _of_val(motion_shards)


def test_a_finished_shard_that_is_taken_away_meanwhile_is_made_again(motion_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = replace(_job(motion_shards / "videos", out), splits=("val",))
    prepare(replace(job, task=(1, 2)), progress=_Meanwhile(lambda: None))
    (part,) = out.glob(f"val/{PARTS_FOLDER}/*.tar.json")

    def take_away() -> None:
        part.unlink()
        (out / "val" / part.stem).unlink()

    told = _Meanwhile(take_away)
    prepare(job, progress=told)
    assert told.begun == [(16, 8)] and len(told.videos) == 16
    assert files(out) == _of_val(motion_shards)


def test_a_shard_of_a_complete_split_is_not_made_again(motion_shards: Path, tmp_path: Path) -> None:
    """Not even by a worker on another machine that outlived its run and finds no part files any more."""
    out = Path(shutil.copytree(motion_shards / "val", tmp_path / "out" / "val"))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    job = _job(motion_shards / "videos", out.parent)
    listing = job.options.scan(job.source)
    (plan,) = make_plan(job.recipe, listing, splits=["val"])
    decoder = Decoder(timeout_seconds=60, stop=threading.Event())
    for shard in plan.shards:
        make_shard(
            ShardTask(shard, plan.clip, len(plan.classes), out),
            recipe=job.recipe,
            root=listing.root,
            decoder=decoder,
            on_video=_unexpected,
        )
    decoder.close()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_ctrl_c_while_the_workers_are_started_stops_them(
    motion_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ThreadPoolExecutor):
        def submit(self, task: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            if threading.current_thread() is threading.main_thread() and self._threads:
                raise KeyboardInterrupt
            return super().submit(task, *arguments, **options)

    monkeypatch.setattr("vidpipe.prep.local.ThreadPoolExecutor", Interrupted)
    job, told = _job(motion_shards / "videos", tmp_path / "out"), _Meanwhile(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(job, workers=2), progress=told)
    assert len(told.videos) < 48 and not list(job.out.glob("*/*.tmp"))


def test_a_folder_of_locks_that_another_run_removes_just_now_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, failures = Path.mkdir, [FileNotFoundError(), FileExistsError()]

    def mkdir(folder: Path, *arguments: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        make(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with present(tmp_path / "out", "plan"):
        assert not failures and (tmp_path / "out" / PARTS_FOLDER / "runs.lock").read_text() == "plan"


def test_a_file_in_the_place_of_the_folder_of_locks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / PARTS_FOLDER).touch()
    with pytest.raises(ShardError, match="can't be used: File exists"), present(tmp_path, "plan"):
        pass


@pytest.mark.timeout(20)
def test_an_output_folder_behind_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(tmp_path / "unmounted")
    refused = pytest.raises(ShardError, match="can't be used: No such file or directory; name a folder that can be")
    with refused, present(tmp_path / "disk" / "out", "plan"):
        pass


def _of_val(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if name.startswith("val/")}


def _unexpected(done: VideoDone) -> None:
    raise AssertionError(f"{done.path} was decoded again")
