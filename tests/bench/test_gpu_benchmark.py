"""The rehearsal of the GPU benchmark on the CPU, and what it does with rows that fail; nothing depends on how fast anything is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import RunCommand

from vidpipe.bench.gpu import course as course_module
from vidpipe.bench.gpu import models
from vidpipe.bench.gpu.course import Course
from vidpipe.bench.gpu.data import find_or_make_shards
from vidpipe.bench.gpu.measuring import Device
from vidpipe.bench.gpu.options import GpuBenchmark
from vidpipe.bench.gpu.run import run_gpu_benchmark
from vidpipe.errors import UsageError, VidpipeError

MODELS = {"vivit", "timesformer", "videomae", "videomae-pretrain", "r2plus1d"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_rehearsal_has_every_row(tmp_path: Path, vidpipe: RunCommand) -> None:
    result = vidpipe("bench", "gpu", "--device", "cpu", "--quick", "--seconds", 0.05, "--out", tmp_path, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report == json.loads((tmp_path / "gpu-quick.json").read_text())
    batches = {row["name"]: row for row in report["batches"]}
    for codec in ("tensor", "jpeg", "mp4"):
        for backend in ("dali", "torch"):
            where = "" if codec == "tensor" else ", decoded by the CPU"
            row = batches[f"vidpipe, {codec}, {backend}{where}"]
            assert row["rate"]["clips"] > 0 and row["rate"]["clips_per_second"] > 0
            assert row["largest_difference"] < 0.045 and row["gpu_seconds_per_clip"] is None
    (decord,) = [row["rate"] for name, row in batches.items() if name.startswith("on the fly: decord")]
    assert decord["clips"] % (report["batch_size"] * report["workers"]) == 0, "each worker's share is counted"
    assert {row["name"] for row in report["decoders"]} == {"frames: libjpeg-turbo", "filmstrips: libjpeg-turbo"}
    assert [row["name"].split(",")[0] for row in report["copies"]] == ["memcpy on the host"]
    trained = {(row["model"].removesuffix(" (narrow)"), row["codec"]) for row in report["models"]}
    assert trained == {(model, codec) for model in MODELS for codec in ("tensor", "jpeg")}
    assert all(0 <= row["wait_share"] < 1 and row["cached"]["clips"] > 0 for row in report["models"])
    left_out = {row["name"] for row in report["left_out"]}
    assert left_out == {"on the fly: DALI fn.readers.video (NVDEC)", "mp4: DALI on the CPU"}
    assert (tmp_path / "gpu-quick.png").read_bytes().startswith(b"\x89PNG")


def test_with_shards_it_takes_those(motion_shards: Path, tmp_path: Path) -> None:
    options = GpuBenchmark(  # whose time is over before its first row
        shards=(motion_shards,), device="cpu", quick=True, size=32, seconds=0.02, workers=2, minutes=1e-9, out=tmp_path
    )
    report = run_gpu_benchmark(options, progress=lambda _line: None)
    (line,) = report.shards
    assert line.startswith("codec tensor: 32 samples of motion/train")
    late = [row.name for row in report.left_out if "time" in row.reason]
    assert "training: r2plus1d" in late and not any("jpeg" in name or "decord" in name for name in late)
    assert "a rehearsal without a GPU" in report.as_text()


@pytest.mark.slow
def test_processes_may_read_for_it(motion_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    options = GpuBenchmark(
        shards=(motion_shards,),
        device="cpu",
        quick=True,
        size=32,
        seconds=0.02,
        workers=2,
        readers="processes",
        out=tmp_path,
    )
    report = run_gpu_benchmark(options, progress=lambda _line: None)
    (row,) = [row for row in report.batches if row.name.startswith("vidpipe")]
    assert row.name == "vidpipe, tensor, dali" and row.rate.clips > 0 and row.largest_difference is not None
    assert {row.model.removesuffix(" (narrow)") for row in report.models} == MODELS
    assert all(row.queued_alone > 0 and row.queued_fed > 0 for row in report.models)
    (refused,) = [row for row in report.left_out if "readers: got 'processes'" in row.reason]
    assert refused.name == "vidpipe, tensor, torch" and report.readers == "processes"


def test_rows_that_fail_take_no_other_with_them() -> None:
    with Course(deadline=math.inf, progress=lambda _line: None) as course:
        assert course.row("sound", partial(int, "7")) == 7
        assert course.row("raises", partial(int, "seven")) is None
        assert course.row("refuses", partial(_refuse, "no such decoder")) is None
        assert course.row("dies", partial(os._exit, 9)) is None
        assert course.row("crashes", os.abort) is None
        assert course.row("sound again", partial(int, "8")) == 8
    reasons = {row.name: row.reason for row in course.left_out}
    assert set(reasons) == {"raises", "refuses", "dies", "crashes"}
    assert reasons["raises"].startswith("ValueError: invalid literal") and reasons["refuses"] == "no such decoder"
    assert "exit code 9" in reasons["dies"] and "SIGABRT" in reasons["crashes"]


def test_what_rows_gave_is_told_at_once_and_none_takes_much_longer_than_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    with Course(deadline=time.monotonic() + 600, progress=told.append) as course:
        assert course.row("sound", partial(int, "7")) == 7
        assert told[0] == "sound" and told[1].endswith(" s: 7")
    monkeypatch.setattr(course_module, "GRACE_SECONDS", -598.0)
    with Course(deadline=time.monotonic() + 600, progress=told.append) as course:
        assert course.row("hangs", partial(time.sleep, 60)) is None
    (row,) = course.left_out
    assert row.reason.startswith("no answer within")


def test_nothing_that_rows_are_forked_from_looks_for_a_gpu() -> None:
    """CUDA can't be used in a fork of a process that has as much as counted its devices."""
    code = """
import sys, torch
def refuse(*_, **__): raise AssertionError("a GPU is looked for")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "is_bf16_supported"):
    setattr(torch.cuda, name, refuse)
torch._C._cuda_getDeviceCount = refuse
for module in sys.argv[1:]:
    __import__(module)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *course_module._PRELOADED], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_memory_is_counted_in_a_process_that_has_not_used_the_gpu_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses to reset the statistics of an allocator that isn't there yet."""
    begun = []

    def reset(device: torch.device) -> None:
        if not begun:
            raise RuntimeError("Invalid device argument")

    monkeypatch.setattr(torch.cuda, "init", lambda: begun.append(True))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 100) if len(begun) < 2 else (50, 100))
    device = Device("cuda")
    device.clear()
    assert device.bytes_in_use() == 0
    begun.append(True)
    assert device.bytes_in_use() == 10


def test_a_model_that_doesnt_fit_is_measured_with_fewer_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_: object, batch_size: int, narrow: bool) -> list[int]:
        if batch_size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [batch_size]

    wanted = SimpleNamespace(batch_size=32)
    monkeypatch.setattr(models, "_rows", rows)
    assert models._measured(models.MODELS[1], [], Device("cpu"), wanted, narrow=True) == (8,)
    monkeypatch.setattr(models, "_rows", partial(_fail, torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        models._measured(models.MODELS[1], [], Device("cpu"), wanted, narrow=True)


@pytest.mark.slow
def test_generated_shards_are_made_by_many_workers_and_come_in_the_order_of_their_weight(tmp_path: Path) -> None:
    shards = find_or_make_shards(GpuBenchmark(quick=True, device="cpu"), tmp_path)
    assert list(shards) == ["tensor", "jpeg", "mp4"]
    assert all(len(one.manifest.shards) == 2 for one in shards.values())
    assert [one.manifest.num_samples for one in shards.values()] == [32, 32, 8]


def test_bad_values_are_refused(motion_shards: Path) -> None:
    with pytest.raises(UsageError, match="minutes: got 0"):
        GpuBenchmark(minutes=0)
    with pytest.raises(UsageError, match="the second folder with codec tensor"):
        run_gpu_benchmark(GpuBenchmark(shards=(motion_shards, motion_shards), device="cpu", quick=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_how_to_rehearse() -> None:
    with pytest.raises(UsageError, match=r"no CUDA device here; --device cpu --quick rehearses"):
        run_gpu_benchmark(GpuBenchmark())


def _refuse(message: str) -> None:
    raise VidpipeError(message)


def _fail(error: Exception, *_: object, **__: object) -> None:
    raise error
