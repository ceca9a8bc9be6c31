"""What becomes of an output folder when it is gone on with by other options, or by other versions."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandResult, RunCommand
from file_tree import contents

from vidpipe.datasets import Listing, Video
from vidpipe.prep.parts import ShardPart, save_part
from vidpipe.prep.plan import make_plan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.manifest import load_manifest

Prep = Callable[..., CommandResult]


@pytest.fixture
def prep(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> Prep:
    """Prepares six videos, three of them a shard."""

    def run(out: str, *options: object) -> CommandResult:
        command = ("prep", "folder", "--source", motion_shards / "videos/val", "--out", tmp_path / out, "--workers", 1)
        clip = ("--frames", 4, "--clips", 1, "--height", 64, "--shard-size-mb", 0.2, "--limit", 6)
        return vidpipe(*command, *clip, *options)

    return run


def _stop_behind(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End runs when so many of their shards are done and the next one's file and index are in place."""
    done: list[str] = []

    def save(out: Path, part: ShardPart, rows: Iterable[dict[str, Any]]) -> None:
        if len(done) == shards:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_part(out, part, rows)
        done.append(part.name)

    monkeypatch.setattr("vidpipe.prep.shard_job.save_part", save)


def test_a_shard_that_another_plan_has_replaced_is_made_again(
    prep: Prep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it is as large as the one that the first plan's part file tells of. Of a plan of more shards, none is left."""
    with monkeypatch.context() as stopped:
        _stop_behind(3, stopped)
        assert prep("out", "--shard-size-mb", 0.07).code == 1
    assert len(list(tmp_path.glob("out/train/*.tar"))) > 3
    with monkeypatch.context() as stopped:
        _stop_behind(1, stopped)
        assert prep("out", "--stride", 1).code == 1
    with monkeypatch.context() as stopped:
        _stop_behind(0, stopped)
        assert prep("out", "--stride", 2).code == 1
    assert prep("out", "--stride", 1).code == 0
    assert prep("whole", "--stride", 1).code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_shard_that_is_no_longer_whole_is_made_again(
    prep: Prep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        _stop_behind(1, stopped)
        assert prep("out").code == 1
    shard = tmp_path / "out/train/00000.tar"
    os.truncate(shard, shard.stat().st_size - 512)
    assert prep("out").code == prep("whole").code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_no_shard_depends_on_is_restated_in_a_finished_manifest(prep: Prep, tmp_path: Path) -> None:
    options = ("--set", "horizontal_flip=false", "--set", "normalize.mean=[0.5, 0.5, 0.5]")
    assert prep("out").code == 0
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/train/*.*") if path.name != "manifest.json"}
    assert "note:" not in prep("out").out
    changed = prep("out", *options)
    assert "note: its manifest now says horizontal_flip false, no more true" in changed.out
    assert "note: its manifest now says normalization" in changed.out
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert prep("whole", *options).code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_manifest_names_the_versions_of_all_that_made_its_shards(
    prep: Prep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        _stop_behind(1, before)
        before.setattr("vidpipe.video.decode.distribution_version", lambda name: "0.1")
        assert prep("out").code == 1
    (part,) = tmp_path.glob("out/train/.parts/*.json")
    ours, told = importlib.metadata.version("av"), part.read_bytes()
    united = prep("out")
    assert f"note: its shards were made with different versions of av: 0.1, {ours}" in united.out
    assert load_manifest(tmp_path / "out/train").versions["av"] == f"0.1, {ours}"
    assert "different versions of vidpipe" not in united.out

    (tmp_path / "out/train/manifest.json").unlink()
    part.parent.mkdir(parents=True)
    about, _, rows = told.partition(b"\n")
    older = {key: value for key, value in json.loads(about).items() if key != "versions"}  # an older vidpipe's
    part.write_bytes(json.dumps(older).encode() + b"\n" + rows)
    assert '"reused_shards": 1' in prep("out", "--json").out
    assert load_manifest(tmp_path / "out/train").versions["av"] == f"{ours}, unknown"


def test_a_plan_means_the_same_to_every_release(tmp_path: Path) -> None:
    """It is pinned, as prepared data sets are found by it: where it changes, users have to prepare them anew."""
    videos = tuple(Video(f"{label}/{n}.mp4", label, "train") for label in "ab" for n in range(3))
    for number, video in enumerate(videos):
        (tmp_path / video.path).parent.mkdir(exist_ok=True)
        (tmp_path / video.path).write_bytes(bytes(number))
    gone = Video("a/gone.mp4", "a", "train")
    recipe = PrepRecipe(dataset="folder", frames=4, clips=1, height=64, shard_size_mb=0.2, seed=3)
    (plan,) = make_plan(recipe, Listing(tmp_path, videos, ("a", "b"), missing=(gone,)))
    assert [[(video.number, video.path) for video in shard.videos] for shard in plan.shards] == [
        [(0, "b/1.mp4"), (1, "a/2.mp4"), (2, "a/1.mp4")],
        [(3, "b/2.mp4"), (5, "a/0.mp4")],
        [(6, "b/0.mp4")],
    ]
    assert [[(video.number, video.path) for video in shard.missing] for shard in plan.shards] == [
        [],
        [(4, gone.path)],
        [],
    ]
    fingerprints = [shard.fingerprint[:16] for shard in plan.shards]
    assert fingerprints == ["35e90dd1bc5c33fa", "569e53f102762530", "d447b5c34e415cf0"]
