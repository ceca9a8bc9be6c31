"""`vidpipe doctor`: a stage that is slow is named, with what would lift it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import RunCommand

from vidpipe.bench.doctor import stages
from vidpipe.bench.doctor.report import Facts, Stage, StageName, judge
from vidpipe.loader.augmentation.transform import ClipTransform
from vidpipe.loader.reading.splits import Split
from vidpipe.train.dry_run import DryRun
from vidpipe.train.recipe_data import DataSection

QUICK = ("--size", 32, "--frames", 2, "--batch-size", 2, "--seconds", 0.05, "--device", "cpu")


class Clock:
    """A clock that goes on by half a millisecond whenever it is looked at: no pause of the machine is on it."""

    def __init__(self) -> None:
        self._seconds, self._lock = 0.0, threading.Lock()

    def perf_counter(self) -> float:
        return self.pass_by(0.0005)

    def pass_by(self, seconds: float) -> float:
        with self._lock:
            self._seconds += seconds
            return self._seconds

    def slowed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that takes a second more on this clock."""

        def slow(*arguments: Any, **named: Any) -> Any:
            self.pass_by(1.0)
            return function(*arguments, **named)

        return slow


@pytest.mark.parametrize(
    ("stage", "owner", "name", "advice"),
    [
        ("CRC-32", stages, "crc32", "check='off'"),
        ("storage, warm", os, "preadv", "read fewer frames"),
        ("augmentation", ClipTransform, "__call__", "device='cuda'"),
    ],
)
def test_a_slow_stage_is_named_with_what_would_lift_it(
    motion_shards: Path,
    vidpipe: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    owner: Any,
    name: str,
    advice: str,
) -> None:
    clock = Clock()
    monkeypatch.setattr(stages, "time", clock)
    monkeypatch.setattr(owner, name, clock.slowed(getattr(owner, name)))
    result = vidpipe("doctor", motion_shards, *QUICK, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["verdict"]["limit"] == stage and found["verdict"]["idle_share"] is None
    assert advice in found["verdict"]["advice"][0]
    rates = {entry["name"]: entry["clips_per_second"] for entry in found["stages"]}
    assert rates[stage] < 3 and rates["host copy"] > 1000
    assert rates["decoding"] is None and rates["transfer"] is None
    assert found["loader"] > 0 and found["step"] is None


def test_the_step_is_named_when_the_data_are_faster(
    motion_shards: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said to take longer than any data here."""
    monkeypatch.setattr(DryRun, "step_seconds", 1000.0)
    options = ("--model", "vivit-tiny", "--batch-size", 1, "--seconds", 0.05, "--device", "cpu")
    result = vidpipe("doctor", motion_shards, *options)
    assert result.code == 0, result.err
    assert "limit: the model's step; the model waits 0% of the time" in result.out
    assert "vivit-tiny, batch 1, cpu, fp32" in result.out


def test_where_the_engine_decodes_it_is_measured_and_the_threads_are_not(
    motion_shards: Path, tmp_path: Path, session_command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALI's decoder of JPEG on the CPU takes the GPU's place."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    videos = ("--source", motion_shards / "videos", "--set", "train_videos=4", "--set", "val_videos=2")
    out = tmp_path / "jpeg"
    assert session_command("prep", "motion", *videos, "--split", "val", "--codec", "jpeg", "--out", out) == 0
    section = DataSection(backend="dali", size=32, batch_size=2, frames=2, drop_last=False)
    found = {}
    for codecs in ((), ("jpeg",)):
        monkeypatch.setattr("vidpipe.loader.engines.backend.device_codecs", lambda *_, codecs=codecs: frozenset(codecs))
        checked = section.model_copy(update={"check": "off" if codecs else "crc"})
        with stages.Stages(Split(out / "val"), checked, device="cpu", threads=2, seconds=0.05) as measured:
            found[codecs] = {name: stage.clips_per_second for name, stage in measured.measure().items()}
    by_threads, by_engine = found.values()
    assert by_threads["decoding"] and by_threads["augmentation"] and "decoding and augmentation" not in by_threads
    assert by_threads["CRC-32"] and by_engine["CRC-32"] is None  # which nobody asked for
    assert by_engine["decoding and augmentation"] and not {"decoding", "augmentation"} & by_engine.keys()


FACTS = Facts(
    codec="tensor",
    backend="torch",
    on_gpu=True,
    dataset_bytes=10**12,
    free_bytes=10**10,
    clip_bytes=3 * 10**6,
    threads=8,
)


def rates(**changed: float | None) -> dict[StageName, Stage]:
    every: dict[StageName, float | None] = {
        "storage, cold": 900.0,
        "storage, warm": 4000.0,
        "host copy": 6000.0,
        "CRC-32": 3000.0,
        "decoding": None,
        "augmentation": 2000.0,
        "transfer": 5000.0,
    }
    names = {"cold": "storage, cold", "crc": "CRC-32", "decoding": "decoding"}
    every |= {names[name]: rate for name, rate in changed.items()}  # type: ignore[misc]
    return {name: Stage(name, rate) for name, rate in every.items()}


def test_storage_counts_cold_unless_the_data_stay_in_memory() -> None:
    verdict = judge(rates(), loader=1000.0, step=1800.0, facts=FACTS)
    assert (verdict.limit, verdict.data_clips_per_second, verdict.idle_share) == ("storage, cold", 900.0, 0.5)
    assert "--codec jpeg" in verdict.advice[0]
    in_memory = replace(FACTS, dataset_bytes=10**9)
    verdict = judge(rates(), loader=1000.0, step=2000.0, facts=in_memory)
    assert (verdict.limit, verdict.idle_share) == ("augmentation", 0.5)
    assert "nvidia-dali" in verdict.advice[0]
    assert judge(rates(cold=None), loader=1000.0, step=2000.0, facts=FACTS).limit == "augmentation"


def test_a_verdict_says_what_rate_to_expect() -> None:
    verdict = judge(rates(cold=None, crc=1500.0), loader=1000.0, step=None, facts=FACTS)
    assert verdict.limit == "CRC-32" and verdict.advice[0] == "LoaderOptions(check='off'): about 3,000 clips/s"
    verdict = judge(rates(cold=None, decoding=800.0), loader=400.0, step=None, facts=FACTS)
    assert verdict.limit == "decoding" and "--codec tensor, which needs no decoding: about 800" in verdict.advice[0]
    on_device = {name: stage for name, stage in rates(cold=None).items() if name not in ("decoding", "augmentation")}
    on_device["decoding and augmentation"] = Stage("decoding and augmentation", 700.0)
    verdict = judge(on_device, loader=700.0, step=None, facts=FACTS)
    assert verdict.limit == "decoding and augmentation" and "decode='cpu'" in verdict.advice[1]
    verdict = judge(rates(), loader=1000.0, step=250.0, facts=FACTS)
    assert (verdict.limit, verdict.idle_share) == ("step", 0.0)


def test_shards_that_are_not_there_are_named(tmp_path: Path, vidpipe: RunCommand) -> None:
    result = vidpipe("doctor", tmp_path / "absent", *QUICK)
    assert result.code == 1 and "no such folder" in result.err


def test_shards_at_a_url_are_fetched_measured_and_judged(bucket: str, vidpipe: RunCommand) -> None:
    first, again = (vidpipe("doctor", bucket, *QUICK, "--json") for _ in range(2))
    assert (first.code, again.code) == (0, 0), first.err + again.err
    found, known = (json.loads(result.out) for result in (first, again))
    fetch = [{stage["name"]: stage for stage in one["stages"]}["fetch"] for one in (found, known)]
    assert fetch[0]["clips_per_second"] > 0 and fetch[1]["clips_per_second"] is None
    assert found["loader"] > 0 and "in the first epoch only" in found["notes"][0]
    assert found["shards"].startswith("s3://")


def test_fetching_counts_where_the_cache_does_not_hold_all_shards() -> None:
    stages = {**rates(), "fetch": Stage("fetch", 50.0)}
    fits = judge(stages, loader=500.0, step=None, facts=replace(FACTS, cache_bytes=2 * 10**12))
    assert fits.limit != "fetch"
    found = judge(stages, loader=500.0, step=100.0, facts=replace(FACTS, cache_bytes=10**11))
    assert found.limit == "fetch" and found.idle_share == 0.5
    assert "data.cache_gb=1000 or more" in found.advice[0]
