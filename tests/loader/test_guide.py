"""The training script in docs/loading.md runs as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vidpipe

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_training_script_of_the_guide(motion_shards: Path, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/loading.md").read_text(), flags=re.DOTALL)
    assert len(script.splitlines()) <= 28
    (tmp_path / "script.py").write_text(script)
    state = tmp_path / "state.json"

    def run() -> list[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [*command, str(tmp_path / "script.py"), str(motion_shards), str(state)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("epoch")]

    # Two processes take 4 clips each of 32; begun on one process, the first epoch has three steps left.
    with vidpipe.Loader(motion_shards, batch_size=8, size=64, augment="train", seed=0) as loader:
        next(iter(loader))
        state.write_text(json.dumps(loader.state_dict()))
    lines = run()
    assert [line.split(":")[0] for line in lines] == ["epoch 0"] * 3 + ["epoch 1"] * 4
    assert run() == []
