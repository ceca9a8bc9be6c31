"""The rehearsal of the GPU benchmark on the CPU, and what it does with rows that fail; nothing depends on how fast anything is."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from command_line import RunCommand

from vidpipe.bench.gpu.course import Course
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
    assert any(name.startswith("on the fly: decord") for name in batches)
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
    assert "training: r2plus1d, tensor" in late and not any("jpeg" in name or "decord" in name for name in late)
    assert "a rehearsal without a GPU" in report.as_text()


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
