"""What a machine or its storage lacks stops `vidpipe prep`, as rejects would cost sound videos; a file that alone is bad is a reject."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandResult, RunCommand
from generated_video import write_video

from vidpipe.shards.index import read_samples
from vidpipe.video.ffmpeg import ffmpeg_path

FAULTY_AV = os.pathsep.join([str(Path(__file__).parent / "faulty_av"), os.environ.get("PYTHONPATH", "")])
CLIP = ("--frames", "16", "--height", "48", "--workers", "1", "--max-rejects", "90%")

PrepFolder = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    return write_video(path, "testsrc2=size=64x48:rate=25:duration=0.8").read_bytes()


@pytest.fixture
def source(video: bytes, tmp_path: Path) -> Path:
    """A class folder with two good videos."""
    (tmp_path / "videos/a").mkdir(parents=True)
    for name in ("good", "sound"):
        (tmp_path / f"videos/a/{name}.mp4").write_bytes(video)
    return tmp_path / "videos"


@pytest.fixture
def prep(source: Path, video: bytes, tmp_path: Path, vidpipe: RunCommand) -> PrepFolder:
    """Prepares `source` with another video of the name given."""

    def run(name: str, *options: str) -> CommandResult:
        (source / "a" / name).write_bytes(video)
        return vidpipe("prep", "folder", "--source", source, "--out", tmp_path / "out", *CLIP, *options)

    return run


def outcome(out: Path) -> tuple[set[str], dict[str, tuple[str, str]]]:
    """Names of the written videos; reason and message of the rejected ones."""
    written = {Path(row["video"]).name for row in read_samples(out / "train").to_pylist()}
    rejects = [json.loads(line) for line in (out / "train/rejects.jsonl").read_text().splitlines()]
    return written, {Path(reject["path"]).name: (reject["reason"], reject["message"]) for reject in rejects}


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("unreadable.mp4", ("unreadable", "the file can't be read: Input/output error")),
        ("vanishes.mp4", ("missing", "there is no such file")),
    ],
)
def test_a_video_that_alone_cannot_be_read_is_a_reject_for_that_reason(
    name: str, verdict: tuple[str, str], prep: PrepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", FAULTY_AV)
    result = prep(name)
    assert result.code == 0, result.err
    assert outcome(tmp_path / "out") == ({"good.mp4", "sound.mp4"}, {name: verdict})


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("unmounts.mp4", "videos/a can't be listed any more: No such file or directory, but a/"),
        ("disconnected.mp4", "a/disconnected.mp4: Transport endpoint is not connected; no video is to blame"),
    ],
)
def test_storage_that_goes_away_stops_the_run_and_costs_no_video(
    name: str, complaint: str, source: Path, prep: PrepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as faulty:
        faulty.setenv("PYTHONPATH", FAULTY_AV)
        stopped = prep(name)
    assert stopped.code == 1 and complaint in stopped.err and "run the same command again" in stopped.err
    assert not list((tmp_path / "out").rglob("*.json*")), "neither a manifest nor rejects"
    if not source.exists():
        source.with_name("videos.gone").rename(source)
    assert prep(name).code == 0
    assert outcome(tmp_path / "out") == ({"good.mp4", "sound.mp4", name}, {})


def test_an_ffmpeg_without_threads_or_descriptors_stops_the_run(
    prep: PrepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *good.mp4*) exit 245;; esac\nexec {ffmpeg_path()} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("VIDPIPE_FFMPEG", str(fake))
    stopped = prep("third.mp4", "--set", "decoder=ffmpeg")
    assert stopped.code == 1 and f"{fake}: Resource temporarily unavailable; no video is to blame" in stopped.err


def test_a_limit_that_the_decoding_process_meets_stops_the_run(source: Path, tmp_path: Path) -> None:
    """Here: on the size of files, less than a clip and so than a shard has."""
    prep = [sys.executable, "-m", "vidpipe", "prep", "folder", "--source", source, "--out", tmp_path / "out", *CLIP]
    limited = ["bash", "-c", 'ulimit -f 100 && exec "$@"', "bash", *map(str, prep)]
    result = subprocess.run(limited, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1 and "error: decoding can't go on: File too large" in result.stderr, result.stderr


def test_storage_that_does_not_answer_while_the_run_is_planned_makes_no_other_plan(
    prep: PrepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which finished shards would be made again."""
    assert prep("third.mp4").code == 0
    real_stat = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "good.mp4":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real_stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    stopped = prep("third.mp4")
    assert stopped.code == 1 and "a/good.mp4: Input/output error" in stopped.err
