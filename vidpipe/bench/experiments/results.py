"""What the trainings of experiments gave: kept as one file for each run, and together as the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict

from vidpipe.bench.experiments.definitions import EXPERIMENTS
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.reports import write_json
from vidpipe.bench.tables import table


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Setup(_Record):
    """What a run was made with.

    Attributes:
        cpu: as the system names it.
        cores: that the run might use.
        threads: of PyTorch, by `OMP_NUM_THREADS`, or as many as cores.
        versions: of the packages.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int | None
    system: str
    versions: dict[str, str]


class Run(_Record):
    """One training of one variant.

    Attributes:
        top1, top5: shares of the val videos, 0 to 1, by the last evaluation.
        loss: mean cross entropy of the val videos.
        videos: of the val split.
        seconds: that the command took, with its start and evaluation.
        load: running processes at the start; above 0: others were at work.
        commands: that a user would type for the same, in order.
    """

    seed: int
    top1: float
    top5: float
    loss: float
    videos: int
    seconds: float
    load: float
    commands: tuple[str, ...]
    setup: Setup


class VariantResult(_Record):
    """The runs of one variant, a seed each."""

    experiment: str
    variant: str
    runs: tuple[Run, ...]

    def cells(self) -> tuple[str, ...]:
        """Its row: name, mean and standard deviation of top-1, and each seed's."""
        top1 = [run.top1 for run in self.runs]
        spread = stdev(top1) if len(top1) > 1 else 0.0
        return self.variant, f"{mean(top1):.1%}", f"{spread:.1%}", *(f"{value:.1%}" for value in top1)


class ExperimentsReport(_Record):
    """All variants of some experiments."""

    results: tuple[VariantResult, ...]

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments, in order."""
        return tuple(dict.fromkeys(result.experiment for result in self.results))

    def rows(self, experiment: str) -> list[tuple[str, ...]]:
        """An experiment's table, with its head; the first cell names the experiment."""
        results = [result for result in self.results if result.experiment == experiment]
        return [(experiment, "top-1", "spread", *(f"seed {run.seed}" for run in results[0].runs))] + [
            result.cells() for result in results
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        questions = {name: EXPERIMENTS[name].question for name in self.experiments}
        return {"questions": questions, **self.model_dump(mode="json")}

    def as_text(self) -> str:
        """A table for each experiment."""
        lines: list[str] = []
        for name in self.experiments:
            lines += [EXPERIMENTS[name].question, *table(self.rows(name)), ""]
        return "\n".join(lines).rstrip()


def describe_setup() -> tuple[Setup, float]:
    """What a run that begins now is made with, and the machine's load."""
    machine = describe_machine()
    setup = Setup(
        cpu=machine.cpu,
        cores=machine.cores,
        threads=int(os.environ.get("OMP_NUM_THREADS", machine.cores)),
        memory_bytes=machine.memory_bytes,
        system=machine.system,
        versions=package_versions(),
    )
    return setup, machine.load


def finished_run(path: Path, commands: Sequence[str]) -> Run | None:
    """The run that a file holds, if it was made by these very commands."""
    if not path.is_file():
        return None
    run = Run.model_validate_json(path.read_bytes())
    return run if run.commands == tuple(commands) else None


def save_run(path: Path, run: Run) -> None:
    """Write it, whole or not at all."""
    write_json(path, run.model_dump(mode="json"))
