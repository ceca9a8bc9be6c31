"""Training in real processes: killed in mid-epoch, sent signals, and on two processes at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.runlog import read_metrics

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SECTIONS = {
    "schedule": {"steps": 150},
    "checkpoint": {"every_steps": 7},
    "ema": 0.95,
    "mixing": {"mixup": 0.4, "prob": 0.5},
    "model": {"drop_path": 0.2},
    "eval": {"every_epochs": 5},
}


def start(
    shards: Path, out: Path, sections: dict[str, Any], *, processes: int = 1, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, "tests/train/train_process.py", str(shards), str(out), json.dumps(sections)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **(env or {})},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    return errors


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(row["step"] >= step for row in read_metrics(out)):
        assert process.poll() is None, f"the run ended before it could be interrupted: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def loss_curve(out: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(out) if "loss" in row]


def test_a_run_killed_again_and_again_equals_an_uninterrupted_one(toy_shards: Path, tmp_path: Path) -> None:
    finish(start(toy_shards, tmp_path / "whole", SECTIONS))
    for step in (4, 40, 90):
        process = start(toy_shards, tmp_path / "killed", SECTIONS)
        wait_for_step(tmp_path / "killed", step, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(toy_shards, tmp_path / "killed", SECTIONS))
    assert loss_curve(tmp_path / "killed") == loss_curve(tmp_path / "whole")
    assert [step for step, _ in loss_curve(tmp_path / "killed")] == [float(step) for step in range(1, 151)]
    whole, killed = read_checkpoint(tmp_path / "whole/last.ckpt"), read_checkpoint(tmp_path / "killed/last.ckpt")
    for name, weight in whole.best_weights().items():
        assert torch.equal(weight, killed.best_weights()[name]), name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 0), (signal.SIGINT, 130)])
def test_signals_save_and_end_the_run(toy_shards: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    sections = {"schedule": {"steps": 5000}, "eval": {"every_epochs": 0}}
    process = start(toy_shards, tmp_path, sections)
    wait_for_step(tmp_path, 10, process)
    process.send_signal(number)
    assert f"stopped by {number.name}" in finish(process, code)
    assert 10 <= read_checkpoint(tmp_path).step < 5000
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps == [float(step) for step in range(1, len(steps) + 1)]


def test_a_batch_system_may_start_the_processes_and_stop_them_all(toy_shards: Path, tmp_path: Path) -> None:
    """As `srun` does: variables instead of a launcher, one task a machine, and Slurm's own beside them, which say other things."""
    sections = {"schedule": {"steps": 5000}, "eval": {"every_steps": 3}, "checkpoint": {"keep_last": 2}}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    slurm = {"SLURM_NTASKS": "16", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "7"}
    processes = [
        start(
            toy_shards,
            tmp_path,
            sections,
            env={**common, **slurm, "MASTER_PORT": str(port), "RANK": str(rank), "GROUP_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    wait_for_step(tmp_path, 20, processes[0])
    processes[1].send_signal(signal.SIGUSR1)  # one of them is enough
    errors = [finish(process) for process in processes]
    assert "stopped by SIG" in errors[0] and "step" not in errors[1]
    assert 20 <= read_checkpoint(tmp_path / "last.ckpt").step < 5000


def test_two_processes_give_the_losses_of_one(toy_shards: Path, tmp_path: Path) -> None:
    sections = {"model": {"dropout": 0.0}, "schedule": {"steps": 9}}
    finish(start(toy_shards, tmp_path / "one", sections))
    finish(start(toy_shards, tmp_path / "two", sections, processes=2))
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for column in ("loss", "val_loss", "grad_norm"):
        first = [row[column] for row in one if column in row]
        assert first == pytest.approx([row[column] for row in two if column in row], rel=1e-4)
    assert [row["top1"] for row in one if "top1" in row] == [row["top1"] for row in two if "top1" in row]


def test_a_run_goes_on_with_another_number_of_processes(toy_shards: Path, tmp_path: Path) -> None:
    sections = {"model": {"dropout": 0.0}, "schedule": {"steps": 9}, "checkpoint": {"every_steps": 1}}
    finish(start(toy_shards, tmp_path / "whole", sections))
    process = start(toy_shards, tmp_path / "parts", sections, processes=2)
    wait_for_step(tmp_path / "parts", 4, process)
    process.terminate()
    process.communicate()
    assert 4 <= read_checkpoint(tmp_path / "parts").step <= 9
    finish(start(toy_shards, tmp_path / "parts", sections))
    whole, parts = dict(loss_curve(tmp_path / "whole")), dict(loss_curve(tmp_path / "parts"))
    assert whole == pytest.approx(parts, rel=1e-4)
