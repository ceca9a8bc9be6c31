"""Pictures of the loader benchmark: clips per second of each arm, and against the settings that were swept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from vidpipe.bench.loader.arms.base import JOBS, Job
from vidpipe.bench.loader.table import LoaderTable
from vidpipe.bench.machine import Machine
from vidpipe.bench.reports import draw_rounds
from vidpipe.bench.tables import number


def draw_rates(tables: Sequence[LoaderTable], machine: Machine) -> Figure:
    """A figure with a row of bars for each table and a column for each job."""
    jobs = [job for job in JOBS if any(table.of(job) for table in tables)]
    heights = [1.2 + 0.32 * max(len(table.of(job)) for job in jobs) for table in tables]
    figure = Figure(figsize=(7 * len(jobs), 0.8 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(tables), len(jobs), squeeze=False, height_ratios=heights)
    for table, row in zip(tables, axes, strict=True):
        for job, axis in zip(jobs, row, strict=True):
            _bars(axis, table, job)
    figure.suptitle(str(machine), fontsize="small")
    return figure


def draw_sweeps(tables: Sequence[LoaderTable], machine: Machine) -> Figure:
    """A figure with a curve for each arm, one picture for each sweep, job and table."""
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
