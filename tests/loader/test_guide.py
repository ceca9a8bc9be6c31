"""The scripts in docs/loading.md run as they stand there."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import start_ranks

import vidpipe

REPOSITORY = Path(__file__).resolve().parents[2]


def run_script(script: Path, shards: Path, state: Path) -> None:
    sys.argv = [str(script), str(shards), str(state)]
    runpy.run_path(str(script), run_name="__main__")


def steps(said: str) -> list[str]:
    return [line.split(":")[0] for line in said.splitlines() if line.startswith("epoch")]


def scripts() -> list[str]:
    """Those of the guide: of training, and of augmentation."""
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/loading.md").read_text(), flags=re.DOTALL)


def test_the_augmentations_of_the_guide(motion_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(scripts()[1])
    monkeypatch.setattr(sys, "argv", [str(script), str(motion_shards)])
    found = runpy.run_path(str(script))
    batch, video, target = found["batch"], found["video"], found["target"]
    assert video.shape == batch.video.shape and not torch.equal(video, batch.video)
    assert (
        target.shape == (8, 8) and torch.allclose(target.sum(dim=1), torch.ones(8)) and target.max(dim=1)[0].min() < 1
    )
    assert found["loader"].epoch == 1 and found["loss"].isfinite()


@pytest.mark.slow
def test_the_training_script_of_the_guide(motion_shards: Path, tmp_path: Path) -> None:
    text, _ = scripts()
    assert len(text.splitlines()) <= 25
    script, state = tmp_path / "script.py", tmp_path / "state.json"
    script.write_text(text)

    # Two processes take 4 clips each of 32; begun on one process, the first epoch has three steps left.
    with vidpipe.Loader(motion_shards, batch_size=8, size=64, augment="train", seed=0) as loader:
        next(iter(loader))
        state.write_text(json.dumps(loader.state_dict()))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(script), str(motion_shards), str(state)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == ["epoch 0"] * 3 + ["epoch 1"] * 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("state")] == ["state.json"]
    again = start_ranks(2, run_script, script, motion_shards, state)
    assert [steps(process.finish()) for process in again] == [[], []]
