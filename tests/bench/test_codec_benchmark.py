"""The codec benchmark as a whole, on tiny videos; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import RunCommand

from vidpipe.bench.codecs.filmstrip import measure_filmstrip
from vidpipe.bench.codecs.quality import Quality
from vidpipe.bench.codecs.report import CodecReport
from vidpipe.bench.codecs.run import CodecBenchmark, run_codec_benchmark
from vidpipe.bench.codecs.variants import VARIANTS, find_variants
from vidpipe.bench.guard import Guard
from vidpipe.bench.prep.arms.base import PrepArmSetup
from vidpipe.bench.prep.process import PrepRun, run_arm
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.shards.codecs import CODECS


@pytest.fixture
def tiny(small_videos: Path, tmp_path: Path) -> CodecBenchmark:
    return CodecBenchmark(
        source=small_videos,
        frames=4,
        stride=1,
        size=32,
        workers=1,
        rounds=1,
        round_seconds=0.01,
        min_videos=2,
        out=tmp_path / "out",
        variants=("jpeg 90",),
    )


def _run(options: CodecBenchmark) -> CodecReport:
    return run_codec_benchmark(options, progress=lambda _line: None)


def _check(report: CodecReport) -> None:
    """What holds for any codec."""
    reference = report.results[0]
    assert reference.name == "tensor" and reference.sample_frames == 4
    assert reference.sample_bytes == 128 + 4 * 240 * 320 * 3
    for result in report.results:
        assert all(len(rounds) == len(reference.prep) for rounds in (result.prep, result.read, result.train))
        assert min(*result.prep, *result.read, *result.train, *result.partial.spread_ms, *result.partial.row_ms) > 0
        assert bool(result.partial.whole_ms) != result.whole_videos
        if result.overrides[0] == "codec=tensor":
            assert result.quality.worst_db == result.quality.mean_db == float("inf")
        else:
            assert 20 < result.quality.worst_db <= result.quality.mean_db < 80
            assert result.frame_bytes < reference.frame_bytes / 4


def test_a_run_compares_and_reports_the_codecs(tiny: CodecBenchmark) -> None:
    report = _run(tiny)
    _check(report)
    assert [result.name for result in report.results] == ["tensor", "jpeg 90"]
    assert (report.videos, report.distinct_videos, report.source_videos) == (2, 2, 3)
    assert [(video.name, video.reason.partition(":")[0]) for video in report.left_out] == [("cut.mp4", "truncated")]
    assert report.filmstrip.long_frames == 16 and report.filmstrip.frames == 4
    text = report.as_text()
    assert "equal" in text and "goal: jpeg 90" in text and "video left out: cut.mp4: truncated" in text
    written = json.loads((tiny.out / "codecs.json").read_text())
    assert written == json.loads(json.dumps(report.to_json(), allow_nan=False))
    tensor, jpeg = written["results"]
    assert tensor["quality"]["worst_db"] is None and tensor["times_tensor_bytes"] == tensor["times_tensor_prep"] == 1
    assert 0 < jpeg["times_tensor_bytes"] < 0.25 and jpeg["times_short_spread"] > 0
    assert (tiny.out / "codecs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_variants_keep_their_promises(tiny: CodecBenchmark) -> None:
    report = _run(replace(tiny, variants=None, min_videos=4))
    _check(report)
    assert not report.refused and {result.name for result in report.results} == set(VARIANTS)
    results = {result.name: result for result in report.results}
    assert results["tensor float16"].sample_bytes == 128 + 2 * 4 * 240 * 320 * 3
    assert results["mp4 crf 20"].sample_frames == 45 and results["mp4 crf 20"].quality.frames == 2 * 64
    for worse, better in (("jpeg 75", "jpeg 90"), ("jpeg 90", "jpeg 95"), ("mp4 crf 28", "mp4 crf 20")):
        assert results[worse].sample_bytes < results[better].sample_bytes
        assert results[worse].quality.mean_db < results[better].quality.mean_db


def test_a_video_that_is_rejected_later_is_not_counted_as_prepared(
    tiny: CodecBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejecting(name: str, target: str, setup: PrepArmSetup, *, guard: Guard) -> PrepRun:
        run = run_arm(name, target, setup, guard=guard)
        late = tuple(replace(video, error="damaged: a late frame") for video in run.done)
        return replace(run, done=late) if setup.scratch.name.startswith("short") else run

    monkeypatch.setattr("vidpipe.bench.codecs.contest.run_arm", rejecting)
    with pytest.raises(VidpipeError, match=r"tensor: [ab]\.mp4: damaged: a late frame; .* leave it out"):
        _run(tiny)
    assert not tiny.out.exists()


@pytest.mark.slow
def test_a_lossless_codec_that_loses_stops_everything(tiny: CodecBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.bench.codecs.contest.measure_quality", lambda *_: Quality(8, 60.0, 48.1))
    with pytest.raises(VidpipeError, match=r"tensor: a stored frame is not the decoded one \(PSNR 48\.1 dB\)"):
        _run(tiny)
    assert not tiny.out.exists()


def test_a_variant_whose_recipe_is_refused_is_left_out_and_a_new_codec_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VARIANTS, "gif", ("codec=gif",))
    monkeypatch.setitem(CODECS, "another", CODECS["jpeg"])
    found, refused = find_variants(None)
    assert [variant.name for variant in found] == [*(name for name in VARIANTS if name != "gif"), "another"]
    assert [(variant.name, "gif" in variant.reason) for variant in refused] == [("gif", True)]


def test_a_filmstrip_holds_the_frames_that_are_taken() -> None:
    clips = [np.full((8, 16, 16, 3), 50 * number, np.uint8) for number in (1, 2)]
    strip = measure_filmstrip(clips, frames=4, rounds=2)
    assert (strip.frames, strip.long_frames) == (4, 8)
    assert len(strip.frames_ms) == len(strip.strip_ms) == len(strip.long_strip_ms) == 2
    assert strip.frames_bytes > strip.strip_bytes > 0, "each file has a header of its own"


def test_bad_values_are_refused(tiny: CodecBenchmark, tmp_path: Path, vidpipe: RunCommand) -> None:
    with pytest.raises(UsageError, match=r"no variant 'jpeg 9'.*jpeg 90"):
        replace(tiny, variants=("jpeg 9",))
    with pytest.raises(UsageError, match="frames: got 65, expected at most 64"):
        replace(tiny, frames=65)
    absent = vidpipe("bench", "codecs", "--source", tmp_path / "absent")
    assert absent.code == 1 and "no such folder" in absent.err
