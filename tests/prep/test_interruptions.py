"""Prep is killed and interrupted as real processes are; the same command again gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prep.interrupted_runs import command, files, is_running, run, wait_for_shards

pytestmark = pytest.mark.slow


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize("target", ["parent", "group"])
def test_sigkill_at_random_moments_then_the_same_command(
    motion_shards: Path, tmp_path: Path, uninterrupted: dict[str, bytes], target: str
) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "2")
    for finished in (0, 2, 4):
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_shards(out, process, finished)
        time.sleep(random.uniform(0, 0.1))
        children = _children(process.pid) if process.poll() is None else []
        (os.kill if target == "parent" else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30
        while any(map(is_running, children)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_running, children)), "a killed run leaves no child behind"
        assert not list(out.glob("*/manifest.json")) or finished
    assert run(arguments).returncode == 0
    assert files(out) == uninterrupted


def test_a_killed_child_costs_nothing(motion_shards: Path, tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    """As the OOM killer does it: SIGKILL for decoding children; the video is tried once more."""
    out = tmp_path / "out"
    process = subprocess.Popen(command(motion_shards / "videos", out, "--workers", "1"), stdout=subprocess.DEVNULL)
    for finished in (1, 3):
        wait_for_shards(out, process, finished)
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
    assert process.wait(timeout=60) == 0
    assert files(out) == uninterrupted


def test_ctrl_c_ends_with_130_and_can_be_gone_on_from(
    motion_shards: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "2")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    wait_for_shards(out, process, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert not list(out.glob("*/*.tmp")) and not list(out.glob("*/manifest.json"))
    assert run(arguments).returncode == 0
    assert files(out) == uninterrupted


def test_two_preps_on_one_output_share_the_work(
    motion_shards: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    arguments = command(motion_shards / "videos", out, "--workers", "1")
    runs = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(run.wait(timeout=120), run.stderr.read()[-500:] if run.returncode else "") for run in runs] == [
        (0, "")
    ] * 2
    assert files(out) == uninterrupted


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
    motion_shards: Path, small_disk: Path, uninterrupted: dict[str, bytes]
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
    assert files(out) == uninterrupted


def test_a_read_only_output_is_a_clear_error(motion_shards: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = run(command(motion_shards / "videos", small_disk / "out"))
    assert result.returncode == 1 and "Read-only file system" in result.stderr and "Traceback" not in result.stderr
