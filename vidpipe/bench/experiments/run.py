"""`vidpipe bench experiments`: trains every variant with every seed by the commands that a user would type.

Each run's result is a file; what is there is not run again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vidpipe.bench.experiments.definitions import EXPERIMENTS, Experiment, Variant
from vidpipe.bench.machine import package_versions
from vidpipe.bench.progress import Progress, to_stderr
from vidpipe.bench.reports import write_json
from vidpipe.bench.tables import table
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.recipes import nearest


@dataclass(frozen=True, slots=True)
class VariantResult:
    """Accuracies of one variant.

    Attributes:
        top1: of the last evaluation, for each seed.
        command: that trains it, but for shards and seed.
    """

    experiment: str
    variant: str
    top1: tuple[float, ...]
    command: str

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return stdev(self.top1) if len(self.top1) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class ExperimentsReport:
    """All variants of some experiments."""

    seeds: int
    versions: dict[str, str]
    results: tuple[VariantResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        questions = {name: EXPERIMENTS[name].question for name in dict.fromkeys(r.experiment for r in self.results)}
        return {**asdict(self), "questions": questions}

    def as_text(self) -> str:
        """A table for each experiment."""
        lines: list[str] = []
        for name in dict.fromkeys(result.experiment for result in self.results):
            rows = [(name, "top-1", "spread", *(f"seed {seed}" for seed in range(self.seeds)))]
            rows += [
                (result.variant, f"{mean(result.top1):.1%}", f"{result.spread:.1%}", *(f"{t:.1%}" for t in result.top1))
                for result in self.results
                if result.experiment == name
            ]
            lines += [EXPERIMENTS[name].question, *table(rows), ""]
        return "\n".join(lines).rstrip()


def run_experiments(
    names: Sequence[str] = (), *, out: Path, seeds: int = 3, progress: Progress = to_stderr
) -> ExperimentsReport:
    """Run experiments, or what is left of them.

    Args:
        names: all by default.
        out: gets videos, shards, runs and results; `experiments.json` is the report.
        seeds: 0, 1, ... so many of them.

    Raises:
        UsageError: there is no such experiment.
        VidpipeError: a command failed.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise UsageError(f"bench experiments: no experiment {name!r}{nearest(name, EXPERIMENTS)}")
    results = [
        _run_variant(name, variant, out=out, seeds=seeds, say=progress)
        for name in names or EXPERIMENTS
        for variant in EXPERIMENTS[name].variants
    ]
    report = ExperimentsReport(seeds, package_versions(), tuple(results))
    write_json(out / "experiments.json", report.to_json())
    return report


def _run_variant(name: str, variant: str, *, out: Path, seeds: int, say: Progress) -> VariantResult:
    experiment, chosen = EXPERIMENTS[name], EXPERIMENTS[name].variants[variant]
    slug = "-".join("".join(c if c.isalnum() else " " for c in variant).split())
    folder, source = out / name, out / name / "videos"
    shards = folder / (f"shards-{slug}" if chosen.prep else "shards")
    prep = [*experiment.prep, *chosen.prep, "--source", str(source), "--out", str(shards)]
    top1 = []
    for seed in range(seeds):
        saved = folder / f"{slug}-{seed}.json"
        if not saved.is_file():
            _call(["prep", "motion", *prep])
            say(f"{name}: {variant}, seed {seed}")
            evaluation = _train(
                experiment, chosen, shards=shards, source=source, run=folder / f"{slug}-{seed}", seed=seed
            )
            write_json(saved, evaluation)
        top1.append(float(json.loads(saved.read_bytes())["top1"]))
    return VariantResult(name, variant, tuple(top1), command(experiment, chosen))


def command(experiment: Experiment, variant: Variant) -> str:
    """What a user would type to train a variant, but for the shards and the seed."""
    if variant.on_the_fly:
        return "vidpipe bench experiments parity"
    return " ".join(
        ["vidpipe train", variant.recipe, *(f"--set {s}" for s in (*experiment.settings, *variant.settings))]
    )


def _train(
    experiment: Experiment, variant: Variant, *, shards: Path, source: Path, run: Path, seed: int
) -> dict[str, Any]:
    """The last evaluation."""
    settings = [*experiment.settings, *variant.settings, f"seed={seed}"]
    if variant.on_the_fly:
        from vidpipe.bench.experiments.on_the_fly import train_on_the_fly

        shutil.rmtree(run, ignore_errors=True)
        return train_on_the_fly(variant.recipe, settings, shards=shards, source=source, out=run)
    options = [word for setting in settings for word in ("--set", setting)]
    where = ["--shards", str(shards), "--out", str(run), "--device", "cpu", "--json", "--resume"]
    evaluation: dict[str, Any] = json.loads(_call(["train", variant.recipe, *where, *options]))["evaluation"]
    return evaluation


def _call(arguments: Sequence[str]) -> str:
    process = subprocess.run([sys.executable, "-m", "vidpipe", *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        words = "\n".join(process.stderr.splitlines()[-5:])
        raise VidpipeError(f"vidpipe {' '.join(arguments)} failed with exit code {process.returncode}: {words}")
    return process.stdout
