"""The prep benchmark as a whole, on tiny videos; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import RunCommand

from vidpipe.bench.prep.arms import REFERENCES
from vidpipe.bench.prep.report import PrepReport
from vidpipe.bench.prep.run import PrepBenchmark, run_prep_benchmark
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.video.decord_library import load_decord


@pytest.fixture
def tiny(small_videos: Path, tmp_path: Path) -> PrepBenchmark:
    return PrepBenchmark(
        source=small_videos,
        frames=4,
        stride=3,
        workers=1,
        rounds=1,
        min_videos=2,
        out=tmp_path / "out",
        arms=("vidpipe-tensor", "ffmpeg-needed"),
    )


def _run(options: PrepBenchmark) -> PrepReport:
    return run_prep_benchmark(options, progress=lambda _line: None)


def test_a_run_proves_times_and_reports_the_arms(tiny: PrepBenchmark) -> None:
    report = _run(tiny)
    assert [result.arm for result in report.results] == ["vidpipe-tensor", "ffmpeg-needed"]
    assert (report.videos, report.distinct_videos, report.source_videos) == (2, 2, 3)
    ((cut, reason),) = [(video.name, video.reason) for video in report.left_out]
    assert cut == "cut.mp4" and "vidpipe prep, tensor: truncated" in reason
    assert report.worst_psnr_db >= 40
    ours, bare = report.results
    assert ours.clip_frames == bare.clip_frames == 2 * 4 and 20 <= (bare.source_frames or 0) <= 90
    for result in report.results:
        assert len(result.rounds) == 1 and result.rounds[0] > 0 and result.cpu_seconds_per_video > 0
        assert 0 < result.first_seconds < 2 / result.rounds[0]
        memory = result.memory
        if Path("/proc/self/smaps_rollup").exists():
            assert memory is not None and 0 <= memory.bytes_per_worker < memory.bytes < 4e9
    if Path("/proc/self/smaps_rollup").exists():  # an ffmpeg of such a small video may end between two samples
        assert ours.memory is not None and ours.memory.bytes_per_worker > 0
    assert report.machine.cpu and report.versions["ffmpeg"] and report.versions["vidpipe"]
    text = report.as_text()
    assert "goal: vidpipe prep, tensor, at 0.9 of" in text and "video left out: cut.mp4" in text
    written = json.loads((tiny.out / "prep.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    assert written["results"][1]["times_bare"] == 1 and written["results"][0]["times_bare"] > 0
    assert (tiny.out / "prep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_arms_with_several_clips_of_each_video(tiny: PrepBenchmark) -> None:
    report = _run(replace(tiny, arms=None, min_videos=5, workers=2))
    assert not report.skipped
    assert report.videos == 6 and report.distinct_videos == 2
    frames = {result.arm: (result.source_frames, result.clip_frames) for result in report.results}
    needed = frames["ffmpeg-needed"][0]
    assert needed is not None and needed < 3 * 90
    assert frames == {
        "vidpipe-tensor": (None, 24),
        "vidpipe-jpeg": (None, 24),
        "vidpipe-mp4": (270, 270),
        "ffmpeg-needed": (needed, 24),
        "ffmpeg-whole": (270, 270),
        "decord": (None, 24),
        "reencode": (270, 270),
    }
    assert report.shards == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("falsified", "message"),
    [
        ("OneFrame", r"no video is left .* ffmpeg, whole videos gives 1 instead of \d0"),
        ("SecondRunIsEmpty", r"falsified: .* gives 0 instead of 4; it gave the right frames when that was proven"),
        ("Dies", r"falsified: its process died \(exit code 7\): the last words"),
    ],
)
def test_an_arm_that_does_other_work_stops_everything(
    tiny: PrepBenchmark, monkeypatch: pytest.MonkeyPatch, falsified: str, message: str
) -> None:
    monkeypatch.setitem(REFERENCES, "falsified", f"bench.falsified_prep_arms:{falsified}")
    with pytest.raises(VidpipeError, match=message):
        _run(replace(tiny, arms=("falsified",), limit=2))
    assert not tiny.out.exists()


@pytest.mark.slow
def test_clips_that_differ_from_decords_are_not_timed(tiny: PrepBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    black = np.zeros((4, 240, 320, 3), np.uint8)
    monkeypatch.setattr("vidpipe.bench.prep.session.read_frames", lambda _videos, _work: black)
    with pytest.raises(VidpipeError, match=r"no video is left .* get_batch gives other frames than prep \(PSNR \d"):
        _run(replace(tiny, limit=2))


@pytest.mark.slow
def test_what_decord_cant_read_is_left_out_without_its_arm_too(
    tiny: PrepBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    decord = load_decord()

    def refuse(*_: object, **__: object) -> None:
        raise decord.DECORDError("no decoder\nfor it")

    monkeypatch.setattr(decord, "VideoReader", refuse)
    with pytest.raises(
        VidpipeError, match=r"no video is left that all arms can decode; [ab]\.mp4: decord: no decoder for it"
    ):
        _run(replace(tiny, limit=2))


def test_without_a_sound_video_it_says_why(small_videos: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    (tmp_path / "cut.mp4").write_bytes((small_videos / "cut.mp4").read_bytes())
    result = vidpipe("bench", "prep", "--source", tmp_path, "--quick", "--out", tmp_path / "out")
    assert result.code == 1 and "no video is left that all arms can decode; cut.mp4: " in result.err
    assert "truncated" in result.err and "Traceback" not in result.err


def test_bad_values_are_refused(tiny: PrepBenchmark, tmp_path: Path, vidpipe: RunCommand) -> None:
    unknown = vidpipe("bench", "prep", "--source", tiny.source, "--arms", "decord,ffmpeg")
    assert unknown.code == 2 and "no arm 'ffmpeg'" in unknown.err and "ffmpeg-needed" in unknown.err
    with pytest.raises(UsageError, match="rounds: got 0"):
        replace(tiny, rounds=0)
    absent = vidpipe("bench", "prep", "--source", tmp_path / "absent")
    assert absent.code == 1 and "no such folder" in absent.err
    (tmp_path / "empty").mkdir()
    empty = vidpipe("bench", "prep", "--source", tmp_path / "empty")
    assert empty.code == 1 and "no video files" in empty.err
