"""The epoch benchmark's results: for people, for programs, and as a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from vidpipe.bench.reports import Report
from vidpipe.bench.tables import number, spread, table

_HEADINGS = ("loader alone", "cached step", "end to end", "min-max", "data share", "feeds the step", "to the first")


@dataclass(frozen=True, slots=True)
class EpochRun:
    """Some steps in full flow; `seconds` includes the `wait_seconds` for batches."""

    clips: int
    wait_seconds: float
    seconds: float

    @property
    def clips_per_second(self) -> float:
        """Clips by all the time."""
        return self.clips / self.seconds

    @property
    def data_share(self) -> float:
        """Share of the time that went into waiting for data, 0 to 1."""
        return self.wait_seconds / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One way to get batches in front of one kind of step.

    Attributes:
        loader_rounds: clips per second of the batches alone, round by round.
        cached_step_seconds: of a step on a batch that is there already; median of the rounds.
        runs: end to end, round by round.
    """

    way: str
    about: str
    step: str
    loader_rounds: tuple[float, ...]
    cached_step_seconds: float
    runs: tuple[EpochRun, ...]

    @property
    def loader_clips_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.loader_rounds)

    @property
    def clips_per_second(self) -> float:
        """End to end, the median of the rounds."""
        return median(run.clips_per_second for run in self.runs)

    @property
    def data_share(self) -> float:
        """End to end, the median of the rounds, 0 to 1."""
        return median(run.data_share for run in self.runs)

    def cached_rate(self, batch_size: int) -> float:
        """Clips per second of the cached step."""
        return batch_size / self.cached_step_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport(Report):
    """What a run of the epoch benchmark found.

    Attributes:
        device: that trained.
        geometry: the clips, in words.
        steps: of each run.
        rounds: turns of each way.
    """

    device: str
    geometry: str
    batch_size: int
    workers: int
    size: int
    steps: int
    rounds: int
    rows: tuple[EpochRow, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The steps, in order."""
        return tuple(dict.fromkeys(row.step for row in self.rows))

    def of(self, step: str) -> tuple[EpochRow, ...]:
        """The rows of one kind of step."""
        return tuple(row for row in self.rows if row.step == step)

    def to_json(self) -> dict[str, Any]:
        """Plain values; each row with its medians."""
        rows = [
            {
                **asdict(row),
                "loader_clips_per_second": row.loader_clips_per_second,
                "clips_per_second": row.clips_per_second,
                "data_share": row.data_share,
            }
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows}

    def as_text(self) -> str:
        """A table for each kind of step, in clips per second, and how it was made."""
        lines = [self.geometry]
        for step in self.kinds:
            rows = self.of(step)
            lines += ["", f"step: {step} (clips/s)"]
            lines += table([("", *_HEADINGS), *(self._cells(row, rows[0]) for row in rows)])
        lines += ["", "data share: of the time, end to end, that the training loop waited for its next batch"]
        lines.append("feeds the step: whether the loader alone is at least as fast as the step on a cached batch")
        lines.append("first it was proven that all ways give the same clips")
        if self.device == "cpu":
            lines.append("there is no GPU here: the stand-in's rate is an assumption, not a measurement")
        taking = f"batches of {self.batch_size}, {self.workers} workers or threads, files in the page cache"
        lines.append(f"median of {self.rounds} interleaved rounds of {self.steps} steps in full flow; {taking}")
        return "\n".join([*lines, *self.closing_lines()])

    def pictures(self) -> dict[str, Any]:
        """Milliseconds a clip: waiting for data, and the rest."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.8 * len(self.kinds), 3.2), layout="constrained")
        axes = figure.subplots(1, len(self.kinds), squeeze=False)[0]
        for step, axis in zip(self.kinds, axes, strict=True):
            rows = self.of(step)[::-1]
            whole = [1e3 / row.clips_per_second for row in rows]
            waits = [milliseconds * row.data_share for milliseconds, row in zip(whole, rows, strict=True)]
            names = [row.way for row in rows]
            axis.barh(names, waits, color="tab:red", label="waiting for data")
            rest = [all_of_it - wait for all_of_it, wait in zip(whole, waits, strict=True)]
            bars = axis.barh(names, rest, left=waits, color="tab:blue", label="step")
            axis.bar_label(bars, [f"{row.data_share:.0%} data" for row in rows], padding=4)
            axis.set_xlim(right=max(whole) * 1.2)
            axis.set_xlabel("milliseconds a clip, end to end")
            axis.set_title(step, fontsize="medium")
            axis.legend(fontsize="small")
        figure.suptitle(f"{self.geometry}\n{self.machine}", fontsize="small")
        return {".png": figure}

    def _cells(self, row: EpochRow, first: EpochRow) -> tuple[str, ...]:
        rates = [run.clips_per_second for run in row.runs]
        return (
            row.way,
            number(row.loader_clips_per_second),
            number(row.cached_rate(self.batch_size)),
            number(row.clips_per_second),
            spread(rates),
            f"{row.data_share:.1%}",
            "yes" if row.loader_clips_per_second >= row.cached_rate(self.batch_size) else "no",
            f"{number(row.clips_per_second / first.clips_per_second)}x",
        )
