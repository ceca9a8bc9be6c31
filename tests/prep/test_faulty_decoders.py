"""Decoders that hang, crash or are killed cost the video in hand and nothing else, as `vidpipe prep` shows it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import RunCommand
from generated_video import write_video
from prep.interrupted_runs import is_running, wait_for_end

from vidpipe.shards.index import read_samples
from vidpipe.video.child import POLL_SECONDS, Child
from vidpipe.video.ffmpeg import ffmpeg_path

FAULTY_DECORD = Path(__file__).parent / "faulty_decord"
NEIGHBOURS = ("before", "between", "beyond", "later", "last")
CLIP = ("--frames", "4", "--clips", "1", "--height", "48", "--max-rejects", "60%")
DECORD = ("--set", "decoder=decord")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small H.264 video of 20 frames."""
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    return write_video(path, "testsrc2=size=64x48:rate=25:duration=0.8").read_bytes()


@pytest.fixture
def folder(video: bytes, tmp_path: Path) -> Callable[..., Path]:
    """Makes a class folder of good neighbours and of videos with the names given."""

    def make(*names: str) -> Path:
        (tmp_path / "videos/a").mkdir(parents=True)
        for name in (*NEIGHBOURS, *names):
            (tmp_path / "videos/a" / f"{name}.mp4").write_bytes(video)
        return tmp_path / "videos"

    return make


@pytest.fixture
def decord_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[int, str]]]:
    """Puts the faulty decord in place for decoding children; gives PID and name of each video that it opened."""
    log = tmp_path / "opened"
    monkeypatch.setenv("PYTHONPATH", str(FAULTY_DECORD))
    monkeypatch.setenv("FAULTY_LOG", str(log))

    def opened() -> list[tuple[int, str]]:
        whole_lines = log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []
        return [(int(pid), name) for pid, name in (line.split() for line in whole_lines)]

    return opened


def outcome(out: Path) -> tuple[set[str], dict[str, tuple[str, str, str]]]:
    """Names of the written videos; stage, reason and message of the rejected ones."""
    written = {Path(row["video"]).stem for row in read_samples(out / "train").to_pylist()}
    rejects = [json.loads(line) for line in (out / "train/rejects.jsonl").read_text().splitlines()]
    return written, {Path(r["path"]).stem: (r["stage"], r["reason"], r["message"]) for r in rejects}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Lets the time limit of a decoding child (its PID is given) run out once it is seen to hang, and no sooner.

    So no machine is too slow for the videos that don't hang. That the limit is kept is tested in `video/test_child.py`.
    """
    real_wait = Child._wait

    def install(hangs: Callable[[int], bool]) -> None:
        def wait(child: Child[Any, Any], process: Any, seconds: float) -> bool:
            while not real_wait(child, process, POLL_SECONDS):
                if hangs(process.popen.pid):
                    return False
            return True

        monkeypatch.setattr(Child, "_wait", wait)

    return install


@pytest.fixture
def killer(decord_log: Callable[[], list[tuple[int, str]]]) -> Iterator[None]:
    """Kills each child that opens a video called `killed-...`, as the OOM killer does."""
    over, killed = threading.Event(), set[int]()

    def watch() -> None:
        while not over.wait(0.05):
            opened = decord_log()
            doomed = [pid for number, (pid, name) in enumerate(opened) if _is_doomed(opened[:number], name)]
            for pid in doomed:
                if pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    over.set()
    thread.join()


def _is_doomed(earlier: list[tuple[int, str]], name: str) -> bool:
    return name == "killed-always" or (name == "killed-once" and all(name != other for _, other in earlier))


@pytest.mark.usefixtures("killer")
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_videos_over_which_decord_hangs_or_dies(
    folder: Callable[..., Path],
    decord_log: Callable[[], list[tuple[int, str]]],
    hurried: Callable[[Callable[[int], bool]], None],
    tmp_path: Path,
    vidpipe: RunCommand,
) -> None:
    hurried(lambda pid: (pid, "hangs") in decord_log())
    source = folder("hangs", "segfaults", "killed-once", "killed-always")
    out = tmp_path / "out"
    command = (
        "prep",
        "folder",
        "--source",
        source,
        "--out",
        out,
        *CLIP,
        *DECORD,
        "--shard-size-mb",
        0.12,
        "--workers",
        2,
    )
    result = vidpipe(*command, "--timeout", 600, "--json")
    assert result.code == 0, result.err
    written, rejects = outcome(out)
    assert written == {*NEIGHBOURS, "killed-once"}
    assert rejects == {
        "hangs": ("decode", "timeout", "no end of decoding after 600 s; killed (--timeout)"),
        "segfaults": ("decode", "crash", "the decoding process died twice over this video (SIGSEGV)"),
        "killed-always": ("decode", "crash", "the decoding process died twice over this video (SIGKILL)"),
    }
    opened = decord_log()
    times = Counter(name for _, name in opened)
    twice = {"segfaults", "killed-once", "killed-always"}
    assert times == {name: 2 if name in twice else 1 for name in (*NEIGHBOURS, *twice, "hangs")}
    assert not any(is_running(pid) for pid, _ in opened), "SIGTERM is ignored, so it takes SIGKILL"
    counts = json.loads(result.out)["splits"]["train"]
    assert (counts["videos"], counts["written"], counts["rejected"]) == (9, 6, 3)
    assert vidpipe("verify", out, "--deep").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_an_ffmpeg_that_hangs_is_killed_with_its_parent(
    folder: Callable[..., Path],
    tmp_path: Path,
    hurried: Callable[[Callable[[int], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
    vidpipe: RunCommand,
) -> None:
    """It is no child of prep's, but of the decoding child, and it ignores SIGTERM."""
    pid_file = tmp_path / "pid"
    hurried(lambda _: pid_file.exists() and bool(pid_file.read_text()) and is_running(int(pid_file.read_text())))
    fake = tmp_path / "ffmpeg"
    hang = f'trap "" TERM; echo $$ > {pid_file}; exec sleep 600'
    fake.write_text(f'#!/bin/sh\ncase "$*" in *hangs.mp4*) {hang};; esac\nexec {ffmpeg_path()} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("VIDPIPE_FFMPEG", str(fake))
    out = tmp_path / "out"
    command = ("prep", "folder", "--source", folder("hangs"), "--out", out, *CLIP, "--set", "decoder=ffmpeg")
    result = vidpipe(*command, "--workers", 1, "--timeout", 600)
    assert result.code == 0, result.err
    written, rejects = outcome(out)
    assert written == set(NEIGHBOURS)
    assert rejects == {"hangs": ("decode", "timeout", "no end of decoding after 600 s; killed (--timeout)")}
    assert wait_for_end([int(pid_file.read_text())])


def test_children_are_replaced_before_they_leak_too_much(
    folder: Callable[..., Path],
    decord_log: Callable[[], list[tuple[int, str]]],
    tmp_path: Path,
    vidpipe: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vidpipe.video.child.RECYCLE_AFTER_VIDEOS", 2)
    command = ("prep", "folder", "--source", folder(), "--out", tmp_path / "out", *CLIP, *DECORD, "--workers", 1)
    assert vidpipe(*command).code == 0
    assert sorted(Counter(pid for pid, _ in decord_log()).values()) == [1, 2, 2]
