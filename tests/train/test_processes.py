"""Training in real processes, by the command: killed in mid-epoch, sent signals, and on two processes at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked, command, free_port, start_ranks
from loader.damage import copied, garbage

from tests.train.processes import UNENDING, command_failing, command_signalled, finish, start, wait_for_step
from tests.train.runs import loss_curve
from tests.train.toy import toy_command
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.runlog import read_metrics

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vidpipe")
KILLED: dict[str, Any] = {
    "schedule": {"steps": 90},
    "checkpoint": {"every_steps": 7},
    "ema": 0.95,
    "mixing": {"mixup": 0.4, "prob": 0.5},
    "model": {"drop_path": 0.2},
    "eval": {"every_epochs": 5},
}
SHARED: dict[str, Any] = {
    "model": {"dropout": 0.0},
    "schedule": {"name": "constant", "steps": 24},
    "checkpoint": {"every_steps": 1},
}


@pytest.fixture(scope="module")
def alone(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, which several should equal."""
    out = tmp_path_factory.mktemp("alone")
    finish(start(toy_shards, out, SHARED))
    return out


def test_a_run_killed_again_and_again_equals_an_uninterrupted_one(toy_shards: Path, tmp_path: Path) -> None:
    finish(start(toy_shards, tmp_path / "whole", KILLED))
    arguments = (*toy_command(toy_shards, KILLED), "--out", tmp_path / "killed", "--resume")
    for step in (4, 25, 50):
        Forked(command_signalled, signal.SIGKILL, step, 0, *arguments).finish(-signal.SIGKILL)
        assert max(row["step"] for row in read_metrics(tmp_path / "killed")) <= step
    Forked(command, *arguments).finish()
    assert loss_curve(tmp_path / "killed") == loss_curve(tmp_path / "whole")
    assert [step for step, _ in loss_curve(tmp_path / "killed")] == [float(step) for step in range(1, 91)]
    whole, killed = read_checkpoint(tmp_path / "whole/last.ckpt"), read_checkpoint(tmp_path / "killed/last.ckpt")
    for name, weight in whole.best_weights().items():
        assert torch.equal(weight, killed.best_weights()[name]), name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 0), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_save_and_end_the_run(toy_shards: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    (process,) = start(toy_shards, tmp_path, {**UNENDING, "eval": {"every_epochs": 0}})
    wait_for_step(tmp_path, 10, process)
    process.send(number)
    said = process.finish(code)
    assert f"stopped by {number.name}" in said
    assert ("the same command goes on, `vidpipe train` with --resume" in said) == (number == signal.SIGINT)
    assert read_checkpoint(tmp_path).step >= 10
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps == [float(step) for step in range(1, len(steps) + 1)]


def test_a_batch_system_may_start_the_processes_and_stop_one_of_them(toy_shards: Path, tmp_path: Path) -> None:
    """As `srun` does: variables instead of a launcher, one task a machine, and Slurm's own beside them, which say other things.

    Steps that take long are the last ones: all processes end with the step in which one of them gets a signal.
    """
    arguments = toy_command(toy_shards, {**UNENDING, "eval": {"every_steps": 3}, "checkpoint": {"keep_last": 2}})
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(free_port())
    slurm = {"SLURM_NTASKS": "16", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "7"}
    ranks = [{**common, **slurm, "RANK": str(rank), "GROUP_RANK": str(rank)} for rank in range(2)]
    never, now = -1, 4
    processes = [
        Forked(command_signalled, signal.SIGUSR1, step, 0.6, *arguments, "--out", tmp_path, env=env)
        for step, env in zip((never, now), ranks, strict=True)
    ]
    said = [process.finish() for process in processes]
    assert "stopped by SIGUSR1 at step 5, saved" in said[0] and "step" not in said[1]
    assert read_checkpoint(tmp_path / "last.ckpt").step == 5


@contextmanager
def torchrun(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`torchrun -m vidpipe ARGUMENTS...` with two processes, which end with it."""
    with subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as launcher:
        try:
            yield launcher
        finally:
            launcher.kill()


def test_two_processes_of_torchrun_give_the_losses_of_one(alone: Path, toy_shards: Path, tmp_path: Path) -> None:
    with torchrun(*toy_command(toy_shards, SHARED), "--out", tmp_path) as launcher:
        said, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said
    one, two = read_metrics(alone), read_metrics(tmp_path)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for column in ("loss", "val_loss", "grad_norm"):
        first = [row[column] for row in one if column in row]
        assert first == pytest.approx([row[column] for row in two if column in row], rel=1e-3)
    assert [row["top1"] for row in one if "top1" in row] == [row["top1"] for row in two if "top1" in row]


def test_every_clip_is_counted_where_one_process_has_fewer(toy_shards: Path, tmp_path: Path) -> None:
    once = {"schedule": {"steps": None, "epochs": 1, "warmup_steps": 0}, "eval": {"every_epochs": 0}}
    arguments = toy_command(toy_shards, {**once, "data": {"where": "label != 0", "drop_last": False}})
    assert '"clips": 19,' in finish(start_ranks(2, command, *arguments, "--out", tmp_path, "--json"))


def test_processes_whose_torchrun_dies_save_and_end(toy_shards: Path, tmp_path: Path) -> None:
    with torchrun(*toy_command(toy_shards, UNENDING), "--out", tmp_path) as launcher:
        deadline = time.monotonic() + 240
        while not any(row["step"] >= 10 for row in read_metrics(tmp_path)):
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        launcher.kill()
        said, _ = launcher.communicate(timeout=240)  # until its processes have closed their output too
    assert launcher.returncode == -signal.SIGKILL
    assert "stopped by the end of torchrun" in said
    assert read_checkpoint(tmp_path / "last.ckpt").step >= 10


def test_a_process_that_fails_ends_at_once_and_so_do_the_others(toy_shards: Path, tmp_path: Path) -> None:
    """Whatever would hold it up: the others wait for it, and a launcher for its end. They fail as nobody foresaw."""
    processes = start_ranks(2, command_failing, 1, 2, *toy_command(toy_shards, SHARED), "--out", tmp_path)
    other, failed = (process.finish(1) for process in processes)
    assert "error: a failure of one process" in failed and "Traceback" not in failed
    assert "Traceback" in other and "RuntimeError" in other


def _train_apart(out: Path, *arguments: object) -> None:
    command(*arguments, "--resume", "--out", out / os.environ["RANK"])


def test_processes_that_find_different_checkpoints_refuse_to_go_on(
    alone: Path, toy_shards: Path, tmp_path: Path
) -> None:
    """As on machines that each have a disk of their own: the weights would differ from then on."""
    shutil.copytree(alone, tmp_path / "0", symlinks=True)
    processes = start_ranks(2, _train_apart, tmp_path, *toy_command(toy_shards, SHARED))
    said = finish(processes, code=2)
    assert said.count("process 0 finds step 24 (") == 2 and "process 1 finds no run; take an --out that all" in said
    shutil.copytree(alone, tmp_path / "1", symlinks=True)
    longer = {**SHARED, "schedule": {"name": "constant", "steps": 25}}
    finish(start_ranks(2, _train_apart, tmp_path, *toy_command(toy_shards, longer)))


def test_processes_may_have_run_folders_of_their_own_unless_they_all_write_checkpoints(
    toy_shards: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "toy"
    copied(toy_shards / "train", shards, sample=3).overwrite(garbage)
    skipping = {**SHARED, "data": {"on_bad": "skip"}}
    finish(start_ranks(2, _train_apart, tmp_path, *toy_command(shards, skipping)))
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["bad-samples.jsonl"]
    dealt_out = {**skipping, "strategy": "fsdp"}
    said = finish(start_ranks(2, _train_apart, tmp_path / "fsdp", *toy_command(shards, dealt_out)), code=2)
    assert (
        said.count("process 1 doesn't see what process 0 writes there") == 2 and "--out that all machines see" in said
    )
    assert not list((tmp_path / "fsdp").glob("*/*"))


def test_a_run_goes_on_with_another_number_of_processes(alone: Path, toy_shards: Path, tmp_path: Path) -> None:
    unending = {**SHARED, "schedule": {"name": "constant", **UNENDING["schedule"]}}
    arguments = (*toy_command(toy_shards, unending), "--out", tmp_path)
    finish(start_ranks(2, command_signalled, signal.SIGTERM, 4, 0, *arguments))
    assert 5 <= read_checkpoint(tmp_path / "last.ckpt").step < 24
    finish(start(toy_shards, tmp_path, SHARED))
    whole, parts = dict(loss_curve(alone)), dict(loss_curve(tmp_path))
    assert whole == pytest.approx(parts, rel=1e-3)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_row_under_way_counts_the_clips_of_all_processes_whoever_goes_on(
    alone: Path, toy_shards: Path, tmp_path: Path, processes: int
) -> None:
    rows = {**SHARED, "log": {"every_steps": 12}}
    unending = {**rows, "schedule": {"name": "constant", **UNENDING["schedule"]}}
    arguments = (*toy_command(toy_shards, unending), "--out", tmp_path)
    finish(start_ranks(2, command_signalled, signal.SIGTERM, 1, 0.5, *arguments))
    assert read_checkpoint(tmp_path / "last.ckpt").step < 12
    finish(start(toy_shards, tmp_path, rows, processes=processes))
    row, *_ = (row for row in read_metrics(tmp_path) if "loss" in row)
    single = [row for row in read_metrics(alone) if "loss" in row][:12]
    for column in ("loss", "top1"):
        assert row[column] == pytest.approx(sum(row[column] for row in single) / 12, rel=1e-3)
