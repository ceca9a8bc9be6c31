"""How the arms' speed depends on batch size, frames or workers."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal

from vidpipe.bench.loader.arms.base import Job
from vidpipe.bench.tables import number, table

Sweep = Literal["batch-size", "frames", "workers"]
SWEEPS: tuple[Sweep, ...] = ("batch-size", "frames", "workers")


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
