"""The loader benchmark as a whole, on tiny shards; nothing here depends on how fast anything is."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vidpipe.bench.arms import ARMS
from vidpipe.bench.loader import LoaderBenchmark, run_loader_benchmark
from vidpipe.bench.loader_report import LoaderReport
from vidpipe.errors import UsageError, VidpipeError

HAS_DALI = importlib.util.find_spec("nvidia.dali") is not None if importlib.util.find_spec("nvidia") else False


@pytest.fixture
def tiny(motion_shards: Path, tmp_path: Path) -> LoaderBenchmark:
    return LoaderBenchmark(
        shards=motion_shards,
        source=motion_shards / "videos",
        out=tmp_path / "out",
        batch_size=4,
        size=32,
        workers=2,
        rounds=2,
        round_seconds=0.02,
    )


def _run(options: LoaderBenchmark) -> LoaderReport:
    return run_loader_benchmark(options, progress=lambda _line: None)


def test_a_run_proves_times_and_reports_every_arm(tiny: LoaderBenchmark) -> None:
    report = _run(tiny)
    skipped = {skip.arm for skip in report.skipped}
    assert skipped == (set() if HAS_DALI else {"vidpipe-dali", "dali-reader"})
    expected = {
        "read": {"memcpy", "vidpipe", "vidpipe-unchecked", "dali-reader", "webdataset", "decord"},
        "train": {"memcpy", "vidpipe-torch", "vidpipe-dali", "dali-reader", "webdataset", "decord"},
    }
    for job in ("read", "train"):
        assert {result.arm for result in report.of(job)} == expected[job] - skipped
    for result in report.results:
        assert len(result.rounds) == 2 and min(result.rounds) > 0 and result.proof.clips == 8
        assert result.proof.psnr_db is None or result.job == "train"
    assert report.geometry.clips == 32 and report.versions["vidpipe"] and report.machine.cpu
    text = report.as_text()
    assert all(result.title in text for result in report.results) and "to on the fly" in text

    written = json.loads((tiny.out / "loader.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    for row in written["results"]:
        assert row["times_on_the_fly"] > 0 and row["times_memcpy"] > 0 and row["about"]
    assert (tiny.out / "loader.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("falsified", "message"),
    [
        ("OneBit", r"read: clip \d+-\d+ differs .* by 1\.0 of 255 levels at most"),
        ("WrongKeys", r"read: clip \d+-\d+ differs"),
        ("SameAgain", "the same are given again"),
        ("Mirrored", r"train: clip \d+-\d+ differs"),
        ("Dies", r"falsified: read: its process died \(exit code 7\): the last words"),
    ],
)
def test_an_arm_that_does_other_work_stops_everything(
    tiny: LoaderBenchmark, monkeypatch: pytest.MonkeyPatch, falsified: str, message: str
) -> None:
    monkeypatch.setitem(ARMS, "falsified", f"bench.falsified_arms:{falsified}")
    with pytest.raises(VidpipeError, match=message):
        _run(replace(tiny, arms=("falsified",)))
    assert not tiny.out.exists()


def test_an_arm_that_cant_run_is_left_out_with_the_reason(
    tiny: LoaderBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "uninstalled", "bench.falsified_arms:Uninstalled")
    report = _run(replace(tiny, source=None, quick=True, jobs=("read",), arms=("uninstalled", "decord", "vidpipe")))
    reasons = {skip.arm: skip.reason for skip in report.skipped}
    assert set(reasons) == {"uninstalled", "decord"}
    assert "a_package_that_nobody_has" in reasons["uninstalled"] and "--source" in reasons["decord"]
    assert [result.arm for result in report.results] == ["vidpipe"]
    assert report.ratio(report.results[0], "decord") is None
    assert all(f"left out: {arm}: " in report.as_text() for arm in reasons)
    assert (tiny.out / "loader-quick.json").is_file()


def test_of_a_large_split_the_first_shards_are_taken(tiny: LoaderBenchmark) -> None:
    arms = ("memcpy", "vidpipe", "webdataset", "decord")
    report = _run(replace(tiny, arms=arms, jobs=("read",), max_megabytes=4.1))
    assert [result.arm for result in report.results] == list(arms)
    assert report.geometry.shards < 4 and report.geometry.clips < 32
    assert f"the first {report.geometry.shards} of" in report.as_text()


def test_without_shards_it_says_where_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no demo/shards here: run `make demo` first, or .* SHARDS=DIR SOURCE=DIR"):
        _run(LoaderBenchmark())


def test_bad_values_are_refused(tiny: LoaderBenchmark, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no arm 'dali'.*dali-reader"):
        replace(tiny, arms=("dali",))
    with pytest.raises(UsageError, match="rounds: got 0"):
        replace(tiny, rounds=0)
    with pytest.raises(UsageError, match="no such folder"):
        _run(replace(tiny, source=tmp_path / "absent"))
