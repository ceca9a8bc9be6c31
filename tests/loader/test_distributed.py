"""Real DDP on four processes with gloo: equal steps, disjoint and covering, and elastic in mid-epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loader.processes import run_loader

from vidpipe import Loader

pytestmark = pytest.mark.slow

LOADER = {"batch_size": 2, "size": 32, "augment": "train", "backend": "torch", "seed": 3}


def real(ranks: list[list[dict[str, Any]]]) -> list[str]:
    """Keys that aren't padding."""
    lines = [line for rank in ranks for line in rank]
    return [key for line in lines for key, padding in zip(line["keys"], line["padding"], strict=True) if not padding]


def test_four_processes_cover_an_epoch_in_equal_steps(motion_shards: Path, tmp_path: Path) -> None:
    ranks = run_loader(motion_shards, tmp_path, {"loader": {**LOADER, "batch_size": 3}}, processes=4)
    assert {len(rank) for rank in ranks} == {3}
    assert len(real(ranks)) == len(set(real(ranks))) == 32
    assert sum(sum(line["padding"]) for rank in ranks for line in rank) <= 3


def test_from_two_processes_to_three_and_back(motion_shards: Path, tmp_path: Path) -> None:
    task = {"loader": LOADER}
    state, seen = None, []
    for processes, steps in ((2, 2), (3, 2), (2, None)):
        folder = tmp_path / f"{len(seen)}"
        ranks = run_loader(motion_shards, folder, {**task, "state": state, "batches": steps}, processes=processes)
        seen += real(ranks)
        state = ranks[0][-1]["state"]
    with Loader(motion_shards, size=32) as loader:
        every = [key for batch in loader for key in batch.key]
    assert len(seen) == len(set(seen)) and set(seen) == set(every)
