"""The loader benchmark's report: for people, for programs, and as pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidpipe.bench.loader_table import LoaderTable
from vidpipe.bench.machine import Machine
from vidpipe.shards.layout import whole_file


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderReport:
    """What a run of the loader benchmark found.

    Attributes:
        date: UTC, ISO 8601.
        quick: whether it was a first impression: few arms, short rounds.
        size: side in pixels of what the `train` job gives.
        rounds: turns of each arm.
        round_seconds: least length of a round.
        tables: one for the shards of each codec.
        files: what was written.
    """

    date: str
    quick: bool
    machine: Machine
    versions: dict[str, str]
    batch_size: int
    workers: int
    size: int
    rounds: int
    round_seconds: float
    tables: tuple[LoaderTable, ...]
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "tables": [table.to_json() for table in self.tables],
            "files": [str(path) for path in self.files],
        }

    def as_text(self) -> str:
        """All tables, and how they were made."""
        lines: list[str] = []
        for table in self.tables:
            lines += [*table.lines(size=self.size, quick=self.quick), ""]
        lines.append("first it was proven that all arms give the same clips")
        lines[-1] += "" if self.quick else "; `same clips`: the largest difference, in levels of 255"
        taking = f"batches of {self.batch_size}, {self.workers} workers or threads, files in the page cache"
        lines.append(f"median of {self.rounds} interleaved rounds of {self.round_seconds:g} s or more; {taking}")
        lines.append(f"{self.machine}; load {self.machine.load:g} at the start")
        lines += [f"written: {', '.join(str(path) for path in self.files)}"] if self.files else []
        return "\n".join(lines)

    def write(self, folder: Path, name: str) -> tuple[Path, ...]:
        """Write the numbers and the pictures, each whole or not at all; folders are made. Gives the files."""
        from vidpipe.bench.loader_plot import draw_rates, draw_sweeps

        folder.mkdir(parents=True, exist_ok=True)
        numbers, rates, sweeps = (folder / f"{name}{ending}" for ending in (".json", ".png", "-sweeps.png"))
        swept = any(table.sweeps for table in self.tables)
        files = (numbers, rates, sweeps) if swept else (numbers, rates)
        content = {**self.to_json(), "files": [str(path) for path in files]}
        with whole_file(numbers) as stream:
            stream.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        with whole_file(rates) as stream:
            draw_rates(stream, self.tables, self.machine)
        if swept:
            with whole_file(sweeps) as stream:
                draw_sweeps(stream, self.tables, self.machine)
        return files
