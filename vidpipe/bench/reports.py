"""What the benchmarks' reports have in common, and how they are written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from vidpipe.bench.machine import Machine
from vidpipe.bench.tables import number
from vidpipe.files import whole_file

DOTS_PER_INCH = 120


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A video, a contestant or a row that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(ABC):
    """What a run of a benchmark found.

    Attributes:
        date: UTC, ISO 8601.
        quick: whether it was a first impression: few contestants, videos and rounds.
        files: paths of what was written.
    """

    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    quick: bool
    machine: Machine
    versions: dict[str, str]
    files: tuple[str, ...] = ()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values."""

    @abstractmethod
    def as_text(self) -> str:
        """For people."""

    @abstractmethod
    def pictures(self) -> dict[str, Any]:
        """Matplotlib's figures by how their files' names end."""

    def written(self, folder: Path, name: str) -> Self:
        """Write `NAME.json` and the pictures, `NAME-quick.*` if quick, each whole or not at all; folders are made.

        Returns:
            the report with its files.
        """
        stem = f"{name}-quick" if self.quick else name
        pictures = {folder / f"{stem}{ending}": figure for ending, figure in self.pictures().items()}
        numbers = folder / f"{stem}.json"
        report = replace(self, files=tuple(map(str, (numbers, *pictures))))
        write_json(numbers, report.to_json())
        for path, figure in pictures.items():
            with whole_file(path) as stream:
                figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
        return report

    def closing_lines(self) -> list[str]:
        """The end of the text: the machine, and what was written."""
        lines = [f"{self.machine}; load {self.machine.load:g} at the start"]
        return [*lines, f"written: {', '.join(self.files)}"] if self.files else lines


def draw_rounds(axis: Any, rounds: Mapping[str, Sequence[float]], *, ours: str = "") -> None:
    """A bar for each name, the first one on top: the median of its rounds, with a line from the lowest to the highest.

    Args:
        ours: how names of blue bars begin; others are grey.
    """
    bars = [(name, median(values), min(values), max(values)) for name, values in [*rounds.items()][::-1]]
    names, middle, low, high = zip(*bars, strict=True)
    errors = np.abs(np.array([low, high]) - middle)
    colors = ["tab:blue" if name.startswith(ours) else "tab:gray" for name in names]
    drawn = axis.barh(names, middle, xerr=errors, color=colors, capsize=3)
    axis.bar_label(drawn, [number(value) for value in middle], padding=8)


def write_json(path: Path, content: Any) -> None:
    """Write plain values, whole or not at all; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as stream:
        stream.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
