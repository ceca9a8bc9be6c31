"""What the benchmarks' reports have in common, and how they are written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from vidpipe.bench.machine import Machine
from vidpipe.shards.layout import whole_file

Draw = Callable[[IO[bytes]], None]


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
        files: what was written.
    """

    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    quick: bool
    machine: Machine
    versions: dict[str, str]
    files: tuple[Path, ...] = ()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values."""

    @abstractmethod
    def as_text(self) -> str:
        """For people."""

    @abstractmethod
    def pictures(self) -> dict[str, Draw]:
        """What draws each picture, a PNG, by the end of its file's name."""

    def written(self, folder: Path, name: str) -> Self:
        """Write `NAME.json` and the pictures, `NAME-quick.*` if quick, each whole or not at all; folders are made.

        Returns:
            the report with its files.
        """
        stem = f"{name}-quick" if self.quick else name
        pictures = {folder / f"{stem}{ending}": draw for ending, draw in self.pictures().items()}
        numbers = folder / f"{stem}.json"
        report = replace(self, files=(numbers, *pictures))
        write_json(numbers, report.to_json())
        for path, draw in pictures.items():
            with whole_file(path) as stream:
                draw(stream)
        return report

    def closing_lines(self) -> list[str]:
        """The end of the text: the machine, and what was written."""
        lines = [f"{self.machine}; load {self.machine.load:g} at the start"]
        return [*lines, f"written: {', '.join(map(str, self.files))}"] if self.files else lines


def write_json(path: Path, content: Any) -> None:
    """Write plain values, whole or not at all; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as stream:
        stream.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
