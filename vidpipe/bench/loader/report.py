"""The loader benchmark's report: for people, for programs, and as pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vidpipe.bench.loader.table import LoaderTable
from vidpipe.bench.reports import Report


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
        from vidpipe.bench.loader.plot import draw_rates, draw_sweeps

        drawn = {".png": draw_rates(self.tables, self.machine)}
        if any(table.sweeps for table in self.tables):
            drawn["-sweeps.png"] = draw_sweeps(self.tables, self.machine)
        return drawn
