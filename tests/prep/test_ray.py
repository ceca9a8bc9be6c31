"""`vidpipe prep --engine ray`, on a cluster of this machine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from prep.interrupted_runs import command, decoding_children, files, is_running, run, wait_for_shards


@pytest.mark.slow
def test_sigkill_of_a_ray_run_then_the_same_command(motion_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    out = tmp_path / "out"
    engine = ("--engine", "ray", "--workers", "2")
    arguments = command(motion_shards / "videos", out, *engine, shard_size_mb=2)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_shards(out, process, 1)
    while not (children := decoding_children(process.pid)):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, children)), "a child lives no longer than the run"
    result = run(arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    assert files(out) == files(motion_shards)
