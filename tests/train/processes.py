"""Starts training runs in processes of their own, and reads what they wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forked import Forked, start_ranks

from tests.train.train_process import run
from vidpipe.train.runlog import read_metrics


def start(
    shards: Path, out: Path, sections: dict[str, Any], *, processes: int = 1, env: Mapping[str, str] | None = None
) -> list[Forked]:
    """A run of the toy recipe, which goes on with what `out` has."""
    if processes == 1:
        return [Forked(run, shards, out, sections, env=env)]
    return start_ranks(processes, run, shards, out, sections, env=env)


def finish(processes: Sequence[Forked], code: int = 0) -> str:
    """Wait until all have ended with this code; what they said."""
    return "".join(process.finish(code) for process in processes)


def wait_for_step(out: Path, step: int, process: Forked) -> None:
    """Until the run in `out`, which `process` is part of, has logged this step."""
    process.wait_until(lambda: any(row["step"] >= step for row in read_metrics(out)))


def loss_curve(out: Path) -> list[tuple[float, float]]:
    """Step and loss of every logged step."""
    return [(row["step"], row["loss"]) for row in read_metrics(out) if "loss" in row]
