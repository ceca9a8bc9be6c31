"""Real DDP on four processes with gloo: equal steps, disjoint and covering, and elastic in mid-epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loader.processes import run_loader

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


@pytest.mark.parametrize("options", [{}, {"shuffle": "windowed", "shuffle_window": 2}])
def test_from_two_processes_to_three_and_four(motion_shards: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    task = {"loader": LOADER, "options": options}
    state, seen = None, []
    for processes, steps in ((2, 2), (3, 1), (2, 1), (4, None)):
        folder = tmp_path / f"{len(seen)}"
        ranks = run_loader(motion_shards, folder, {**task, "state": state, "batches": steps}, processes=processes)
        seen += real(ranks)
        state = ranks[0][-1]["state"]
    assert len(seen) == len(set(seen)) == 32
    (alone,) = run_loader(motion_shards, tmp_path / "alone", task)
    assert sorted(seen) == sorted(real([alone]))
