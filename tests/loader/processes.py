"""Starts loaders in processes of their own, and reads what they gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forked import Forked, start_ranks
from loader import loader_process


def start_loader(shards: str | Path, out: Path, task: dict[str, Any]) -> Forked:
    """See loader_process.py for the task."""
    out.mkdir(parents=True, exist_ok=True)
    return Forked(loader_process.run, str(shards), out, task)


def run_loader(
    shards: str | Path, out: Path, task: dict[str, Any], *, processes: int = 1
) -> list[list[dict[str, Any]]]:
    """The batches of every rank."""
    out.mkdir(parents=True, exist_ok=True)
    for process in start_ranks(processes, loader_process.run, str(shards), out, task):
        process.finish()
    return [batches(out, rank) for rank in range(processes)]


def batches(out: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What a rank has given so far; an unfinished last line is left out."""
    path = out / f"{rank}.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]
