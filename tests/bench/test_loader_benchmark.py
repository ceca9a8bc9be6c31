"""The loader benchmark as a whole, on tiny shards; nothing here depends on how fast anything is."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.bench.loader.arms import ARMS, ArmEntry
from vidpipe.bench.loader.arms.base import CENTER_CROP, ArmSetup
from vidpipe.bench.loader.arms.web_dataset import WebDatasetArrayArm
from vidpipe.bench.loader.proof import prove
from vidpipe.bench.loader.report import LoaderReport
from vidpipe.bench.loader.run import LoaderBenchmark, run_loader_benchmark
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.shards.manifest import load_manifest


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


PACKAGES = {"nvidia.dali": {"vidpipe-dali", "dali-reader"}, "litdata": {"litdata"}, "streaming": {"mosaicml-streaming"}}
ABSENT = {arm for package, arms in PACKAGES.items() if not _installed(package) for arm in arms}


@pytest.fixture
def tiny(motion_shards: Path, tmp_path: Path) -> LoaderBenchmark:
    return LoaderBenchmark(
        shards=(motion_shards,),
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_proves_times_and_reports_every_arm_and_every_codec(tiny: LoaderBenchmark) -> None:
    report = _run(replace(tiny, codecs=("jpeg", "mp4")))
    ours = {"read": {"memcpy", "vidpipe", "vidpipe-unchecked"}, "train": {"memcpy", "vidpipe-torch", "vidpipe-dali"}}
    peers = {
        "tensor": {
            *("dali-reader", "webdataset", "litdata", "mosaicml-streaming"),
            *("pyav", "torchcodec", "decord"),
        },
        "jpeg": {"dali-jpeg", "dali-filmstrip", "webdataset-jpeg", "pyav", "torchcodec", "decord"},
        "mp4": {"webdataset-mp4", "pyav", "torchcodec", "decord"},
    }
    assert [table.geometry.codec for table in report.tables] == list(peers)
    for table in report.tables:
        skipped = {skip.name for skip in table.skipped}
        assert skipped <= ABSENT | {"torchcodec"}  # which also needs FFmpeg's shared libraries
        for job in ("read", "train"):
            only_here = {"preadv"} if (job, table.geometry.codec) == ("read", "tensor") else set()
            expected = (ours[job] | peers[table.geometry.codec] | only_here) - skipped
            assert {result.arm for result in table.of(job)} == expected
        for result in table.results:
            assert len(result.rounds) == 2 and min(result.rounds) > 0 and result.proof.clips == 8
        exact = {r.arm for r in table.of("read") if r.proof.psnr_db is None}
        assert ours["read"] <= exact
        assert table.geometry.clips == 32 and table.geometry.frames == 16
        assert table.large_index and table.large_index.shards == 10_000
        assert table.epoch_memory is None or list(table.epoch_memory.bytes_by_epoch) == [1, 10, 50]
    written = json.loads((tiny.out / "loader.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    for row in written["tables"][0]["results"]:
        assert row["times_on_the_fly"] > 0 and row["times_memcpy"] > 0 and row["about"]
    assert (tiny.out / "loader.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_of_some_arms(tiny: LoaderBenchmark, vidpipe: RunCommand) -> None:
    result = vidpipe(
        *("bench", "loader", *tiny.shards, "--source", tiny.source, "--quick", "--jobs", "read", "--rounds", 1),
        *("--arms", "memcpy,vidpipe,decord,dali-jpeg", "--batch-size", 4, "--out", tiny.out),
    )
    assert result.code == 0, result.err
    assert "codec tensor: 32 clips of motion/train" in result.out and "to on the fly" in result.out
    assert "left out: dali-jpeg: does not read codec tensor (uint8)" in result.out
    (table,) = json.loads((tiny.out / "loader-quick.json").read_text())["tables"]
    assert [row["arm"] for row in table["results"]] == ["memcpy", "vidpipe", "decord"]


@pytest.mark.slow
def test_a_sweep_takes_the_fastest_arms_again(tiny: LoaderBenchmark) -> None:
    arms = ("memcpy", "preadv", "vidpipe", "webdataset")
    report = _run(replace(tiny, arms=arms, jobs=("read",), sweeps=("frames",), quick=True, rounds=1))
    (sweep,) = report.tables[0].sweeps
    assert sweep.values == (1, 2, 4, 8, 16) and sweep.job == "read"
    assert {point.arm for point in sweep.points} == {"vidpipe", "webdataset"} and len(sweep.points) == 10
    assert "read: clips/s against frames" in report.as_text()
    assert (tiny.out / "loader-quick-sweeps.png").read_bytes().startswith(b"\x89PNG")


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
    monkeypatch.setitem(ARMS, "falsified", ArmEntry(f"bench.falsified_arms:{falsified}"))
    with pytest.raises(VidpipeError, match=message):
        _run(replace(tiny, arms=("falsified",)))
    assert not tiny.out.exists()


def test_an_arm_that_cant_run_is_left_out_with_the_reason(
    tiny: LoaderBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "uninstalled", ArmEntry("bench.falsified_arms:Uninstalled"))
    report = _run(replace(tiny, source=None, quick=True, jobs=("read",), arms=("uninstalled", "decord", "vidpipe")))
    (table,) = report.tables
    reasons = {skip.name: skip.reason for skip in table.skipped}
    assert set(reasons) == {"uninstalled", "decord"}
    assert "a_package_that_nobody_has" in reasons["uninstalled"] and "--source" in reasons["decord"]
    assert [result.arm for result in table.results] == ["vidpipe"]
    assert table.ratio(table.results[0], "decord") is None
    assert all(f"left out: {arm}: " in report.as_text() for arm in reasons)


def test_without_any_arm_there_is_no_report(tiny: LoaderBenchmark) -> None:
    with pytest.raises(VidpipeError, match=r"no arm is left; decord: needs the videos: .* --source"):
        _run(replace(tiny, source=None, arms=("decord",)))
    with pytest.raises(VidpipeError, match="no arm is left; none of them does such a job"):
        _run(replace(tiny, arms=("preadv",), jobs=("train",)))
    assert not tiny.out.exists()


def test_of_a_large_split_the_first_shards_are_taken(tiny: LoaderBenchmark) -> None:
    arms = ("memcpy", "vidpipe", "webdataset", "decord")
    report = _run(replace(tiny, arms=arms, jobs=("read",), max_megabytes=4.1))
    (table,) = report.tables
    assert [result.arm for result in table.results] == list(arms)
    assert table.geometry.shards < len(load_manifest(tiny.shards[0] / "train").shards) and table.geometry.clips < 32
    assert f"the first {table.geometry.shards} of" in report.as_text()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_webdataset_has_as_many_workers_as_the_others_whatever_the_shards(motion_shards: Path, tmp_path: Path) -> None:
    folder = motion_shards / "val"
    assert len(load_manifest(folder).shards) == 2
    setup = ArmSetup(folder=folder, source=None, scratch=tmp_path, batch_size=2, workers=3, size=32, crop=CENTER_CROP)
    arm = WebDatasetArrayArm(setup)
    arm.prepare()
    others = set(multiprocessing.active_children())
    with closing(arm.batches("read")) as batches:
        next(batches)
        assert len(set(multiprocessing.active_children()) - others) == 3
    assert prove(arm, "read", num_batches=9).clips == 18 and len(list(tmp_path.glob("*.tar"))) == 3


def test_without_shards_it_says_where_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no demo/shards here: run `make demo` first, or .* SHARDS=DIR SOURCE=DIR"):
        _run(LoaderBenchmark())


def test_bad_values_are_refused(tiny: LoaderBenchmark, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for changes, message in (
        ({"arms": ("dali",)}, r"no arm 'dali'.*dali-reader"),
        ({"codecs": ("jpg",)}, r"no codec 'jpg'.*jpeg"),
        ({"jobs": ("write",)}, "jobs: got write, expected some of read, train"),
        ({"jobs": ()}, "jobs: got"),
        ({"rounds": 0}, "rounds: got 0"),
        ({"out": tmp_path / "file" / "out"}, "file is no folder that can be written to"),
    ):
        with pytest.raises(UsageError, match=message):
            replace(tiny, **changes)
    with pytest.raises(UsageError, match="no such folder"):
        _run(replace(tiny, source=tmp_path / "absent"))
    with pytest.raises(UsageError, match="codec jpeg: preparing it needs the videos"):
        _run(replace(tiny, source=None, quick=True, arms=("memcpy",), jobs=("read",), codecs=("jpeg",)))


def test_options_that_are_given_twice_count_twice(vidpipe: RunCommand) -> None:
    result = vidpipe("bench", "loader", "--sweep", "speed", "--sweep", "frames,workers")
    assert result.code == 2 and "sweeps: got speed, frames, workers, expected some of" in result.err
