"""The epoch benchmark as a whole, on tiny videos; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.bench.epoch import session
from vidpipe.bench.epoch.decord_native import DecordIndicesFirstArm
from vidpipe.bench.epoch.run import EpochBenchmark, run_epoch_benchmark
from vidpipe.bench.loader.arms.base import ArmSetup
from vidpipe.bench.loader.arms.on_the_fly import SourceClip
from vidpipe.errors import UsageError, VidpipeError

WAYS = ["decord, all frames first", "decord, indices first", "vidpipe, jpeg", "vidpipe, tensor"]


class NextFrames(DecordIndicesFirstArm):
    """Takes the frames of another place in the video."""

    @classmethod
    def clips(cls, setup: ArmSetup) -> list[SourceClip]:
        clips = super().clips(setup)
        return [replace(clip, frame_indices=clip.frame_indices[::-1]) for clip in clips]


def test_every_way_in_front_of_a_stand_in_and_of_a_true_step(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    result = vidpipe(
        *("bench", "epoch", motion_shards, "--source", motion_shards / "videos", "--quick", "--device", "cpu"),
        *(
            "--videos",
            12,
            "--batch-size",
            2,
            "--size",
            64,
            "--steps",
            1,  # of two workers, whole bursts are taken
            "--workers",
            2,
            "--gpu-rate",
            400,
            "--out",
            tmp_path,
        ),
    )
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "epoch-quick.json").read_text())
    assert [row["way"] for row in written["rows"]] == WAYS * 2
    stand_in, real = written["rows"][:4], written["rows"][4:]
    assert {row["step"] for row in stand_in} == {"stand-in for a GPU: sleeps at 400 clips/s"}
    assert {row["step"] for row in real} == {"vivit-tiny on cpu"}
    for row in written["rows"]:
        (run,) = row["runs"]
        assert run["clips"] == 4 and 0 < run["wait_seconds"] < run["seconds"]
        assert row["data_share"] == pytest.approx(run["wait_seconds"] / run["seconds"])
        assert row["clips_per_second"] > 0 and row["loader_clips_per_second"] > 0
    assert all(row["cached_step_seconds"] >= 2 / 400 for row in stand_in)
    assert "12 clips of 12 videos of motion/train" in result.out
    assert all(way in result.out for way in WAYS) and "an assumption, not a measurement" in result.out
    assert (tmp_path / "epoch-quick.png").read_bytes().startswith(b"\x89PNG")


def test_a_way_that_gives_other_clips_stops_everything(
    motion_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = replace(session.WAYS[1], kind=NextFrames)
    monkeypatch.setattr(session, "WAYS", (way, *session.WAYS[2:]))
    options = EpochBenchmark(
        shards=motion_shards,
        source=motion_shards / "videos",
        device="cpu",
        videos=8,
        size=64,
        batch_size=4,
        workers=1,
        out=tmp_path / "out",
        quick=True,
    )
    with pytest.raises(VidpipeError, match=r"decord, indices first: train: clip \d+-\d+ differs"):
        run_epoch_benchmark(options, progress=lambda _line: None)
    assert not (tmp_path / "out").exists()


def test_bad_values_are_refused(motion_shards: Path) -> None:
    with pytest.raises(UsageError, match="gpu_rate: got 0"):
        EpochBenchmark(gpu_rate=0)
    with pytest.raises(UsageError, match="needs the videos; name their folder with --source"):
        run_epoch_benchmark(EpochBenchmark(shards=motion_shards))
