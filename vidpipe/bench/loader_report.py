"""The loader benchmark's results: for people, for programs, and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

from vidpipe.bench.arm import JOBS, Job
from vidpipe.bench.arms import CEILING, ON_THE_FLY
from vidpipe.bench.machine import Machine
from vidpipe.bench.proof import Proof
from vidpipe.shards.layout import whole_file

_HEADINGS = ("clips/s", "min-max", "to on the fly", "to memcpy", "CPU/clip", "first batch", "memory", "same clips")
QUICK_COLUMNS = 4  # of the table, with that of the names


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm at one job.

    Attributes:
        rounds: clips per second of each round.
        first_batch_seconds: from opening the arm to its first batch, without importing its packages; None for the ceiling,
            which has to make its batches first.
        cpu_seconds_per_clip: of all its processes, over all rounds.
        memory_bytes: most that its processes held at the end of a round, without mapped files; None if unknown.
        proof: how its clips compare with those stored.
    """

    arm: str
    job: Job
    title: str
    about: str
    rounds: tuple[float, ...]
    first_batch_seconds: float | None
    cpu_seconds_per_clip: float
    memory_bytes: int | None
    proof: Proof

    @property
    def clips_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An arm that was left out, and why."""

    arm: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipGeometry:
    """The clips that were read.

    Attributes:
        sizes: width x height of the frames, the most frequent first, three at most.
        clip_bytes: of a clip's frames, in the mean.
    """

    dataset: str
    split: str
    codec: str
    clips: int
    shards: int
    frames: int
    sizes: tuple[str, ...]
    clip_bytes: int

    def __str__(self) -> str:
        where = f"{self.clips} clips of {self.dataset}/{self.split} in {self.shards} shards"
        return f"{where}: {self.frames} frames of {', '.join(self.sizes)}, {self.clip_bytes / 1e6:.2f} MB, {self.codec}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderReport:
    """What a run of the loader benchmark found.

    Attributes:
        date: UTC, ISO 8601.
        quick: whether it was a first impression: few arms, short rounds.
        size: side in pixels of what the `train` job gives.
        round_seconds: least length of a round.
        files: what was written.
    """

    date: str
    quick: bool
    machine: Machine
    versions: dict[str, str]
    geometry: ClipGeometry
    batch_size: int
    workers: int
    size: int
    round_seconds: float
    results: tuple[ArmResult, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def of(self, job: Job) -> tuple[ArmResult, ...]:
        """The results of one job, in the order of the arms."""
        return tuple(result for result in self.results if result.job == job)

    def ratio(self, result: ArmResult, arm: str) -> float | None:
        """How many times as fast as another arm at the same job; None if that one was left out."""
        rates = [other.clips_per_second for other in self.of(result.job) if other.arm == arm]
        return result.clips_per_second / rates[0] if rates else None

    def to_json(self) -> dict[str, Any]:
        """Plain values; each result with its median and its ratios."""
        results = [
            {
                **asdict(result),
                "clips_per_second": result.clips_per_second,
                "times_on_the_fly": self.ratio(result, ON_THE_FLY),
                "times_memcpy": self.ratio(result, CEILING),
            }
            for result in self.results
        ]
        return {**asdict(self), "results": results, "files": [str(path) for path in self.files]}

    def as_text(self) -> str:
        """A table for each job, and what is to be known about it."""
        jobs = {
            "read": "read: uint8 clips in memory",
            "train": f"train: random resized crop to {self.size}, flip, normalised float32",
        }
        lines = [str(self.geometry)]
        for job in JOBS:
            if self.of(job):
                columns = QUICK_COLUMNS if self.quick else len(_HEADINGS) + 1
                rows = [("", *_HEADINGS), *(self._row(result) for result in self.of(job))]
                lines += ["", jobs[job], *_table([row[:columns] for row in rows])]
        lines += ["", "first it was proven that all arms give the same clips"]
        lines[-1] += "" if self.quick else "; `same clips`: the largest difference, in levels of 255"
        lines += [f"left out: {skipped.arm}: {skipped.reason}" for skipped in self.skipped]
        lines += [f"note: {note}" for note in self.notes]
        rounds = max((len(result.rounds) for result in self.results), default=0)
        taking = f"batches of {self.batch_size}, {self.workers} workers or threads, files in the page cache"
        lines.append(f"median of {rounds} interleaved rounds of {self.round_seconds:g} s or more; {taking}")
        lines.append(f"{self.machine}; load {self.machine.load:g} at the start")
        lines += [f"written: {', '.join(str(path) for path in self.files)}"] if self.files else []
        return "\n".join(lines)

    def write(self, json_path: Path, plot_path: Path) -> None:
        """Write the numbers and the picture, each whole or not at all; folders are made."""
        json_path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(json_path) as stream:
            stream.write((json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode())
        with whole_file(plot_path) as stream:
            self._plot(stream)

    def _row(self, result: ArmResult) -> tuple[str, ...]:
        on_the_fly, ceiling = self.ratio(result, ON_THE_FLY), self.ratio(result, CEILING)
        return (
            result.title,
            _number(result.clips_per_second),
            f"{_number(min(result.rounds))}-{_number(max(result.rounds))}",
            "" if on_the_fly is None else f"{_number(on_the_fly)}x",
            "" if ceiling is None else f"{ceiling:.2f}",
            f"{result.cpu_seconds_per_clip * 1e3:.2f} ms",
            "" if result.first_batch_seconds is None else f"{result.first_batch_seconds:.2f} s",
            "" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.0f} MB",
            str(result.proof),
        )

    def _plot(self, stream: IO[bytes]) -> None:
        from matplotlib.figure import Figure

        jobs = [job for job in JOBS if self.of(job)]
        figure = Figure(figsize=(6.5 * len(jobs), 4.2), layout="constrained")
        axes = figure.subplots(1, len(jobs), squeeze=False)[0]
        for job, axis in zip(jobs, axes, strict=True):
            results = self.of(job)[::-1]
            rates = [result.clips_per_second for result in results]
            low = [result.clips_per_second - min(result.rounds) for result in results]
            high = [max(result.rounds) - result.clips_per_second for result in results]
            ours = ["tab:blue" if result.arm.startswith("vidpipe") else "tab:gray" for result in results]
            bars = axis.barh([result.title for result in results], rates, xerr=[low, high], color=ours, capsize=3)
            axis.bar_label(bars, [_number(rate) for rate in rates], padding=8)
            axis.set_xscale("log")
            axis.set_xlim(right=max(rates) * 6)
            axis.set_xlabel("clips per second (median, min to max)")
            axis.set_title(job)
        figure.suptitle(f"{self.geometry}\n{self.machine}", fontsize="small")
        figure.savefig(stream, format="png", dpi=120)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
