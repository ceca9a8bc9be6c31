"""One table of the loader benchmark: what was measured on the shards of one codec, with its sweeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from vidpipe.bench.loader.arms import CEILING, ON_THE_FLY
from vidpipe.bench.loader.arms.base import JOBS, Job
from vidpipe.bench.loader.proof import Proof
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.tables import number, spread, table

Sweep = Literal["batch-size", "frames", "workers"]
SWEEPS: tuple[Sweep, ...] = ("batch-size", "frames", "workers")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipGeometry:
    """The clips that were read.

    Attributes:
        codec: with its type of numbers where that is not uint8.
        sizes: width x height of the frames, the most frequent first, three at most.
        clip_bytes: of a clip's frames once decoded, in the mean.
        stored_bytes: of all shards.
    """

    dataset: str
    split: str
    codec: str
    clips: int
    shards: int
    frames: int
    sizes: tuple[str, ...]
    clip_bytes: int
    stored_bytes: int

    def __str__(self) -> str:
        where = f"codec {self.codec}: {self.clips} clips of {self.dataset}/{self.split} in {self.shards} shards"
        stored = f"{self.stored_bytes / self.clips / 1e6:.2f} MB a clip ({self.clip_bytes / 1e6:.2f} decoded)"
        return f"{where}: {self.frames} frames of {', '.join(self.sizes)}, {stored}"


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One arm at one value; `rounds` has the clips per second of each round."""

    arm: str
    title: str
    value: int
    rounds: tuple[float, ...]

    @property
    def clips_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Clips per second of some arms at one job, for some values of one setting; all others are those of the table."""

    sweep: Sweep
    job: Job
    points: tuple[SweepPoint, ...]

    @property
    def titles(self) -> tuple[str, ...]:
        """The arms' titles, in order."""
        return tuple(dict.fromkeys(point.title for point in self.points))

    @property
    def values(self) -> tuple[int, ...]:
        """The setting's values, ascending."""
        return tuple(sorted({point.value for point in self.points}))

    def rates(self, title: str) -> dict[int, float]:
        """An arm's clips per second by value."""
        return {point.value: point.clips_per_second for point in self.points if point.title == title}

    def lines(self) -> list[str]:
        """A table with a column for each value."""
        rows = [("", *map(str, self.values))]
        for title in self.titles:
            rates = self.rates(title)
            rows.append((title, *(number(rates[value]) if value in rates else "" for value in self.values)))
        return [f"{self.job}: clips/s against {self.sweep}", *table(rows)]


@dataclass(frozen=True, slots=True)
class LargeIndex:
    """The first batch with an index of very many shards, which are links to those that there are.

    Attributes:
        first_batch_seconds: from opening the loader to its first batch.
        memory_bytes: that its process held then; None if unknown.
    """

    shards: int
    samples: int
    first_batch_seconds: float
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class EpochMemory:
    """Resident memory of a process that does nothing but iterate, after some epochs.

    Attributes:
        clips: of an epoch.
        bytes_by_epoch: number of epochs, and what was resident then.
    """

    clips: int
    bytes_by_epoch: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderTable:
    """What was measured with the shards of one codec.

    Attributes:
        notes: what the reader of the figures has to know.
        sweeps: cost against other settings, if that was asked for.
        large_index, epoch_memory: None in a quick run, and without vidpipe's own arm of the `train` job.
    """

    geometry: ClipGeometry
    results: tuple[ArmResult, ...]
    skipped: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    sweeps: tuple[SweepResult, ...] = ()
    large_index: LargeIndex | None = None
    epoch_memory: EpochMemory | None = None

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
        return {**asdict(self), "results": results}

    def lines(self, *, size: int, quick: bool) -> list[str]:
        """A table for each job, and what is to be known about it."""
        jobs = {
            "read": "read: uint8 clips in memory",
            "train": f"train: random resized crop to {size}, flip, normalised float32",
        }
        lines = [str(self.geometry)]
        for job in JOBS:
            if self.of(job):
                columns = QUICK_COLUMNS if quick else len(_HEADINGS) + 1
                rows = [("", *_HEADINGS), *(self._row(result) for result in self.of(job))]
                lines += ["", jobs[job], *table([row[:columns] for row in rows])]
        for sweep in self.sweeps:
            lines += ["", *sweep.lines()]
        lines += [""] if self.large_index or self.epoch_memory or self.skipped or self.notes else []
        lines += self._long_runs()
        lines += [f"left out: {skipped.name}: {skipped.reason}" for skipped in self.skipped]
        lines += [f"note: {note}" for note in self.notes]
        return lines

    def _long_runs(self) -> list[str]:
        lines = []
        if self.large_index:
            index = self.large_index
            memory = "" if index.memory_bytes is None else f", {index.memory_bytes / 1e6:.0f} MB"
            what = f"an index of {index.shards:,} shards with {index.samples:,} samples (simulated)"
            lines.append(f"first batch of vidpipe with {what}: {index.first_batch_seconds:.2f} s{memory}")
        if self.epoch_memory:
            memory = ", ".join(f"{n}: {size / 1e6:.0f} MB" for n, size in self.epoch_memory.bytes_by_epoch.items())
            lines.append(f"resident memory of vidpipe after epochs of {self.epoch_memory.clips} clips: {memory}")
        return lines

    def _row(self, result: ArmResult) -> tuple[str, ...]:
        on_the_fly, ceiling = self.ratio(result, ON_THE_FLY), self.ratio(result, CEILING)
        return (
            result.title,
            number(result.clips_per_second),
            spread(result.rounds),
            "" if on_the_fly is None else f"{number(on_the_fly)}x",
            "" if ceiling is None else f"{ceiling:.2f}",
            f"{result.cpu_seconds_per_clip * 1e3:.2f} ms",
            "" if result.first_batch_seconds is None else f"{result.first_batch_seconds:.2f} s",
            "" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.0f} MB",
            str(result.proof),
        )
