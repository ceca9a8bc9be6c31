"""The loader benchmark's report: for people, for programs, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidpipe.bench.loader.arms.base import JOBS, Job
from vidpipe.bench.loader.table import LoaderTable
from vidpipe.bench.machine import Machine
from vidpipe.bench.reports import Report, draw_rounds
from vidpipe.bench.tables import number


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderReport(Report):
    """What a run of the loader benchmark found.

    Attributes:
        size: side in pixels of what the `train` job gives.
        rounds: turns of each arm.
        round_seconds: least length of a round.
        tables: one for the shards of each codec.
    """

    batch_size: int
    workers: int
    size: int
    rounds: int
    round_seconds: float
    tables: tuple[LoaderTable, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "tables": [table.to_json() for table in self.tables]}

    def as_text(self) -> str:
        """All tables, and how they were made."""
        lines: list[str] = []
        for table in self.tables:
            lines += [*table.lines(size=self.size, quick=self.quick), ""]
        lines.append("first it was proven that all arms give the same clips")
        lines[-1] += "" if self.quick else "; `same clips`: the largest difference, in levels of 255"
        taking = f"batches of {self.batch_size}, {self.workers} workers or threads, files in the page cache"
        lines.append(f"median of {self.rounds} interleaved rounds of {self.round_seconds:g} s or more; {taking}")
        return "\n".join([*lines, *self.closing_lines()])

    def pictures(self) -> dict[str, Any]:
        """Speeds of the arms, and if there are sweeps, against the settings that were swept."""
        drawn = {".png": _draw_rates(self.tables, self.machine)}
        if any(table.sweeps for table in self.tables):
            drawn["-sweeps.png"] = _draw_sweeps(self.tables, self.machine)
        return drawn


def _draw_rates(tables: Sequence[LoaderTable], machine: Machine) -> Any:
    """A figure with a row of bars for each table and a column for each job."""
    from matplotlib.figure import Figure

    jobs = [job for job in JOBS if any(table.of(job) for table in tables)]
    heights = [1.2 + 0.32 * max(len(table.of(job)) for job in jobs) for table in tables]
    figure = Figure(figsize=(7 * len(jobs), 0.8 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(tables), len(jobs), squeeze=False, height_ratios=heights)
    for table, row in zip(tables, axes, strict=True):
        for job, axis in zip(jobs, row, strict=True):
            _bars(axis, table, job)
    figure.suptitle(str(machine), fontsize="small")
    return figure


def _draw_sweeps(tables: Sequence[LoaderTable], machine: Machine) -> Any:
    """A figure with a curve for each arm, one picture for each sweep, job and table."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    swept = [(table, sweep) for table in tables for sweep in table.sweeps]
    columns = min(2, len(swept))
    rows = -(-len(swept) // columns)
    figure = Figure(figsize=(6.5 * columns, 0.6 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis in axes[len(swept) :]:
        axis.remove()
    for (table, sweep), axis in zip(swept, axes, strict=False):
        for title in sweep.titles:
            rates = sweep.rates(title)
            axis.plot(list(rates), list(rates.values()), marker="o", label=title)
        axis.set(xscale="log", yscale="log", xlabel=sweep.sweep, ylabel="clips per second")
        axis.set_xticks(sweep.values, [str(value) for value in sweep.values])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: number(rate)))
        axis.minorticks_off()
        axis.set_title(f"{table.geometry.codec}, {sweep.job}", fontsize="small")
        axis.legend(fontsize="small")
    figure.suptitle(str(machine), fontsize="small")
    return figure


def _bars(axis: Any, table: LoaderTable, job: Job) -> None:
    results = table.of(job)
    if not results:
        axis.remove()
        return
    draw_rounds(axis, {result.title: result.rounds for result in results}, ours="vidpipe")
    axis.set_xscale("log")
    axis.set_xlim(right=max(result.clips_per_second for result in results) * 6)
    axis.set_xlabel("clips per second (median, min to max)")
    axis.set_title(f"{job}, codec {table.geometry.codec}", fontsize="medium")
