"""Sweeps of the loader benchmark: the fastest arms again, with other batch sizes, frames or numbers of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vidpipe.bench.loader.arms import NO_LOADERS
from vidpipe.bench.loader.arms.base import ArmSetup, Job
from vidpipe.bench.loader.session import Pace, run_job, started_arms
from vidpipe.bench.loader.table import ArmResult, Sweep, SweepPoint, SweepResult
from vidpipe.bench.running import Progress
from vidpipe.cores import usable_cores

LARGEST_BATCH = 64
OTHERS = 2


def run_sweep(
    sweep: Sweep, results: Sequence[ArmResult], setup: ArmSetup, *, stored_frames: int, pace: Pace, progress: Progress
) -> list[SweepResult]:
    """Clips per second of some arms for some values of one setting.

    Args:
        results: of the table: of each job, vidpipe's fastest arm and the fastest `OTHERS` others are taken.
        stored_frames: of a clip.

    Raises:
        VidpipeError: an arm doesn't give the stored clips, or failed.
    """
    contestants = {job: _contestants(results, job) for job in dict.fromkeys(result.job for result in results)}
    points: dict[Job, list[SweepPoint]] = {job: [] for job in contestants}
    for value in _values(sweep, stored_frames=stored_frames):
        progress(f"sweep: {sweep} {value}")
        names = [name for arms in contestants.values() for name in arms]
        with started_arms(names, _changed(setup, sweep, value)) as (arms, _):
            for job, chosen in contestants.items():
                able = [arm for arm in arms if arm.name in chosen]
                for result in run_job(able, job, pace=pace, progress=lambda _line: None):
                    points[job].append(SweepPoint(result.arm, result.title, value, result.rounds))
    return [SweepResult(sweep, job, tuple(found)) for job, found in points.items()]


def _contestants(results: Sequence[ArmResult], job: Job) -> list[str]:
    ranked = sorted((r for r in results if r.job == job and r.arm not in NO_LOADERS), key=lambda r: -r.clips_per_second)
    checked = [r.arm for r in ranked if r.arm.startswith("vidpipe") and not r.arm.endswith("unchecked")]
    return [*checked[:1], *[r.arm for r in ranked if not r.arm.startswith("vidpipe")][:OTHERS]]


def _values(sweep: Sweep, *, stored_frames: int) -> list[int]:
    if sweep == "workers":
        return sorted({usable_cores(), *_powers(2 * usable_cores())})
    if sweep == "frames":
        return sorted({stored_frames, *(n for n in _powers(stored_frames) if stored_frames % n == 0)})
    return _powers(LARGEST_BATCH)


def _powers(largest: int) -> list[int]:
    return [1 << n for n in range(largest.bit_length()) if 1 << n <= largest]


def _changed(setup: ArmSetup, sweep: Sweep, value: int) -> ArmSetup:
    match sweep:
        case "workers":
            return replace(setup, workers=value)
        case "frames":
            return replace(setup, frames=value)
        case "batch-size":
            return replace(setup, batch_size=value)
