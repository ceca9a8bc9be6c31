"""Prep is killed and interrupted as real processes are; the same command again gives the same bytes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prep.interrupted_runs import Run, Whole, command, files, num_finished, run, wait_for_shards

pytestmark = pytest.mark.slow

HELD = Path(__file__).parent / "held_prep.py"


@pytest.mark.parametrize("target", ["parent", "group", "interrupt"])
def test_ended_at_random_moments_then_the_same_command(
    motion_shards: Path, tmp_path: Path, uninterrupted: Whole, target: str
) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "2")
    moments = random.Random(target)
    for _ in range(3):
        killed = Run(arguments, out)
        killed.wait(moments.uniform(0, 0.6), uninterrupted)
        killed.kill(target, uninterrupted)
    assert run(arguments).returncode == 0
    assert files(out) == uninterrupted.files
    assert not list(out.rglob(".parts"))


@pytest.mark.parametrize("point", ["index", "manifest", "clearing"])
def test_sigkill_while_finishing_then_the_same_command(
    motion_shards: Path, tmp_path: Path, uninterrupted: Whole, point: str
) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "2")
    _kill_held(point, arguments, tmp_path / "reached")
    assert (out / "train/samples.parquet").exists() and list(out.glob("*/.parts/*.json"))
    assert len(list(out.glob("*/manifest.json"))) == {"index": 0, "manifest": 1, "clearing": 2}[point]
    again = run([*arguments, "--json"])
    assert again.returncode == 0 and json.loads(again.stdout)["made_shards"] == 0
    assert files(out) == uninterrupted.files
    assert not list(out.rglob(".parts"))


def _kill_held(point: str, arguments: list[str], reached: Path) -> None:
    """SIGKILL when a run has come to a point of `held_prep.py`."""
    held = [sys.executable, str(HELD), point, str(reached), *arguments[3:]]
    process = subprocess.Popen(held, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not reached.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()


def test_a_killed_child_costs_nothing(motion_shards: Path, tmp_path: Path, uninterrupted: Whole) -> None:
    """As the OOM killer does it: SIGKILL for decoding children; the video is tried once more."""
    out = tmp_path / "out"
    disturbed = Run(command(motion_shards / "videos", out, "--workers", "1"), out)
    wanted = 1
    for _ in range(2):
        wait_for_shards(out, disturbed.process, wanted)
        disturbed.kill_worker()
        wanted = num_finished(out) + 2  # behind the shard in hand, as no video survives a second kill
    assert disturbed.whole().files == uninterrupted.files


def test_another_plan_takes_over_from_killed_runs(motion_shards: Path, tmp_path: Path, uninterrupted: Whole) -> None:
    out = tmp_path / "out"
    other = command(motion_shards / "videos", out, "--stride", "3", "--workers", "1", shard_size_mb=0.2)
    _kill_held("index", other, tmp_path / "reached")
    assert run(command(motion_shards / "videos", out)).returncode == 0
    assert files(out) == uninterrupted.files


def test_two_preps_on_one_output_share_the_work(motion_shards: Path, tmp_path: Path, uninterrupted: Whole) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "1")
    runs = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in runs]
    assert [code for _, code in ends] == [0, 0], ends
    assert files(out) == uninterrupted.files
    assert not list(out.rglob(".parts"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_clear_error_and_can_be_gone_on_from(
    motion_shards: Path, small_disk: Path, uninterrupted: Whole
) -> None:
    out = small_disk / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "2")
    full = run(arguments)
    assert full.returncode == 1 and "No space left on device" in full.stderr and "Traceback" not in full.stderr
    assert not list(out.glob("*/*.tmp")) and not list(out.glob("*/manifest.json"))
    finished = list(out.glob("*/.parts/*.json"))
    assert finished, "shards that fitted are kept"
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert run(arguments).returncode == 0
    assert files(out) == uninterrupted.files


def test_a_read_only_output_is_a_clear_error(motion_shards: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = run(command(motion_shards / "videos", small_disk / "out"))
    assert result.returncode == 1 and "Read-only file system" in result.stderr and "Traceback" not in result.stderr
