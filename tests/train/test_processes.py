"""Training in real processes: killed in mid-epoch, sent signals, and on two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import start_ranks

from tests.train.processes import finish, loss_curve, start, wait_for_step
from tests.train.train_process import run
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.runlog import read_metrics

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
KILLED: dict[str, Any] = {
    "schedule": {"steps": 90},
    "checkpoint": {"every_steps": 7},
    "ema": 0.95,
    "mixing": {"mixup": 0.4, "prob": 0.5},
    "model": {"drop_path": 0.2},
    "eval": {"every_epochs": 5},
}
SHARED: dict[str, Any] = {"model": {"dropout": 0.0}, "schedule": {"steps": 9}, "checkpoint": {"every_steps": 1}}


@pytest.fixture(scope="module")
def alone(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, which several should equal."""
    out = tmp_path_factory.mktemp("alone")
    finish(start(toy_shards, out, SHARED))
    return out


def test_a_run_killed_again_and_again_equals_an_uninterrupted_one(toy_shards: Path, tmp_path: Path) -> None:
    finish(start(toy_shards, tmp_path / "whole", KILLED))
    for step in (4, 25, 50):
        (process,) = start(toy_shards, tmp_path / "killed", KILLED)
        wait_for_step(tmp_path / "killed", step, process)
        process.kill()
    finish(start(toy_shards, tmp_path / "killed", KILLED))
    assert loss_curve(tmp_path / "killed") == loss_curve(tmp_path / "whole")
    assert [step for step, _ in loss_curve(tmp_path / "killed")] == [float(step) for step in range(1, 91)]
    whole, killed = read_checkpoint(tmp_path / "whole/last.ckpt"), read_checkpoint(tmp_path / "killed/last.ckpt")
    for name, weight in whole.best_weights().items():
        assert torch.equal(weight, killed.best_weights()[name]), name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 0), (signal.SIGINT, 130)])
def test_signals_save_and_end_the_run(toy_shards: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    sections = {"schedule": {"steps": 5000}, "eval": {"every_epochs": 0}}
    (process,) = start(toy_shards, tmp_path, sections)
    wait_for_step(tmp_path, 10, process)
    process.send(number)
    assert f"stopped by {number.name}" in process.finish(code)
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
    ranks = [
        {**common, **slurm, "MASTER_PORT": str(port), "RANK": str(rank), "GROUP_RANK": str(rank)} for rank in range(2)
    ]
    processes = [process for env in ranks for process in start(toy_shards, tmp_path, sections, env=env)]
    wait_for_step(tmp_path, 20, processes[0])
    processes[1].send(signal.SIGUSR1)  # one of them is enough
    said = [process.finish() for process in processes]
    assert "stopped by SIG" in said[0] and "step" not in said[1]
    assert 20 <= read_checkpoint(tmp_path / "last.ckpt").step < 5000


def test_two_processes_of_torchrun_give_the_losses_of_one(alone: Path, toy_shards: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "tests/train/train_process.py", str(toy_shards), str(tmp_path), json.dumps(SHARED)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = read_metrics(alone), read_metrics(tmp_path)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for column in ("loss", "val_loss", "grad_norm"):
        first = [row[column] for row in one if column in row]
        assert first == pytest.approx([row[column] for row in two if column in row], rel=1e-4)
    assert [row["top1"] for row in one if "top1" in row] == [row["top1"] for row in two if "top1" in row]


def _train_apart(shards: Path, out: Path, sections: dict[str, Any]) -> int:
    return run(shards, out / os.environ["RANK"], sections)


def test_processes_that_find_different_checkpoints_refuse_to_go_on(
    alone: Path, toy_shards: Path, tmp_path: Path
) -> None:
    """As on machines that each have a disk of their own: the weights would differ from then on."""
    shutil.copytree(alone, tmp_path / "0", symlinks=True)
    processes = start_ranks(2, _train_apart, toy_shards, tmp_path, SHARED)
    said = finish(processes, code=1)
    assert said.count("process 0 finds step 9 (") == 2 and "process 1 finds no run; take an --out that all" in said
    shutil.copytree(alone, tmp_path / "1", symlinks=True)
    finish(start_ranks(2, _train_apart, toy_shards, tmp_path, {**SHARED, "schedule": {"steps": 10}}))


def test_a_run_goes_on_with_another_number_of_processes(alone: Path, toy_shards: Path, tmp_path: Path) -> None:
    processes = start(toy_shards, tmp_path, SHARED, processes=2)
    wait_for_step(tmp_path, 4, processes[0])
    for process in processes:
        process.send(signal.SIGTERM)
    finish(processes)
    assert 4 <= read_checkpoint(tmp_path).step <= 9
    finish(start(toy_shards, tmp_path, SHARED))
    whole, parts = dict(loss_curve(alone)), dict(loss_curve(tmp_path))
    assert whole == pytest.approx(parts, rel=1e-4)
