"""Starts loaders in processes of their own, and reads what they gave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def start_loader(shards: str | Path, out: Path, task: dict[str, Any], *, processes: int = 1) -> subprocess.Popen[str]:
    """See loader_process.py for the task."""
    out.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, str(REPOSITORY / "tests/loader/loader_process.py"), str(shards), str(out), json.dumps(task)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_loader(
    shards: str | Path, out: Path, task: dict[str, Any], *, processes: int = 1
) -> list[list[dict[str, Any]]]:
    """The batches of every rank."""
    process = start_loader(shards, out, task, processes=processes)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return [batches(out, rank) for rank in range(processes)]


def batches(out: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What a rank has given so far; an unfinished last line is left out."""
    path = out / f"{rank}.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]
