"""`vidpipe bench experiments`: trains every variant with every seed by the commands that a user would type.

Each run's result is a file; what is there, made by the same commands, is not run again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidpipe.bench.experiments.definitions import EXPERIMENTS
from vidpipe.bench.experiments.jobs import Job, job_of
from vidpipe.bench.experiments.results import (
    ExperimentsReport,
    Run,
    VariantResult,
    describe_setup,
    finished_run,
    save_run,
)
from vidpipe.bench.reports import write_json
from vidpipe.bench.running import Progress, to_stderr
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.recipes import nearest


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
    results = []
    for name in names or EXPERIMENTS:
        for variant in EXPERIMENTS[name].variants:
            jobs = [job_of(name, variant, seed=seed) for seed in range(seeds)]
            runs = tuple(_result_of(job, out, say=progress) for job in jobs)
            results.append(VariantResult(experiment=name, variant=variant, runs=runs))
    report = ExperimentsReport(results=tuple(results))
    write_json(out / "experiments.json", report.to_json())
    return report


def _result_of(job: Job, out: Path, *, say: Progress) -> Run:
    """Its result, trained for unless it is there."""
    saved = out / job.folder / f"{job.name}.json"
    run = finished_run(saved, job.commands())
    if run is None:
        if job.start is not None:
            _result_of(job.start, out, say=say)
        if saved.is_file():  # of other commands
            shutil.rmtree(job.run_folder(out), ignore_errors=True)
        say(f"{job.folder}: {job.name}")
        _call(job.prep_arguments(out))
        run = _train(job, out)
        save_run(saved, run)
    return run


def _train(job: Job, out: Path) -> Run:
    setup, load = describe_setup()
    start = time.perf_counter()
    if job.variant.on_the_fly:
        from vidpipe.bench.experiments.on_the_fly import train_on_the_fly

        run = job.run_folder(out)
        shutil.rmtree(run, ignore_errors=True)
        where = {"shards": job.shards_folder(out), "source": job.videos_folder(out), "out": run}
        evaluation = train_on_the_fly(job.variant.recipe, job.overrides(out), **where)
    else:
        evaluation = json.loads(_call([*job.train_arguments(out), "--json", "--resume"]))["evaluation"]
    numbers: dict[str, Any] = {key: evaluation[key] for key in ("top1", "top5", "loss", "videos")}
    seconds = round(time.perf_counter() - start, 1)
    return Run(**numbers, seed=job.seed, seconds=seconds, load=load, commands=job.commands(), setup=setup)


def _call(arguments: Sequence[str]) -> str:
    process = subprocess.run([sys.executable, "-m", "vidpipe", *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        words = "\n".join(process.stderr.splitlines()[-5:])
        raise VidpipeError(f"vidpipe {' '.join(arguments)} failed with exit code {process.returncode}: {words}")
    return process.stdout
