"""`vidpipe prep --engine ray`, on a cluster of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import RunCommand
from prep.interrupted_runs import command, decoding_children, files, num_finished, wait_for_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a cluster takes its time to start

FAULTY_AV = Path(__file__).parent / "faulty_av"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster that the test's own process uses."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.init("local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_sigkill_of_a_ray_run_then_a_local_one(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    """The first can't end before it is killed, since one of its videos never opens."""
    pytest.importorskip("ray", reason="Ray is not installed")
    source = Path(shutil.copytree(motion_shards / "videos" / "val", tmp_path / "videos"))
    (source / "left" / "0000.mp4").rename(source / "left" / "hangs.mp4")
    out, hanging = tmp_path / "out", tmp_path / "hanging"
    options = ["--frames", "4", "--height", "64", "--shard-size-mb", "0.2", "--timeout", "600"]
    arguments = ["folder", "--source", str(source), *options]
    modules = os.pathsep.join([str(FAULTY_AV), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": modules, "HANGING": str(hanging)}
    held = [*command(source, out)[:4], *arguments, "--out", str(out), "--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(held, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        while not hanging.exists() or num_finished(out) < 5:  # of six shards
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        children = decoding_children(process.pid)
        assert int(hanging.read_text()) in children
    finally:
        process.kill()
        process.wait()
    assert wait_for_end(children), "a child lives no longer than the run"
    assert vidpipe("prep", *arguments, "--out", out).code == 0
    assert vidpipe("prep", *arguments, "--out", tmp_path / "whole").code == 0
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.usefixtures("cluster")
def test_any_mix_of_engines_gives_the_same_bytes(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    source, out = motion_shards / "videos", tmp_path / "out"
    prep = command(source, out, shard_size_mb=2)[3:]
    for options in (("--engine", "ray", "--task", "1/3"), ("--task", "2/3"), ("--engine", "ray")):
        result = vidpipe(*prep, *options)
        assert result.code == 0, result.err
    assert files(out) == files(motion_shards)
    assert not list(out.rglob(".parts"))


@pytest.mark.usefixtures("cluster")
def test_what_a_ray_worker_meets_is_told_as_elsewhere(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    in_the_way = tmp_path / "out/val/00001.tar"
    in_the_way.mkdir(parents=True)
    prep = command(motion_shards / "videos", tmp_path / "out", "--split", "val", shard_size_mb=2)[3:]
    result = vidpipe(*prep, "--engine", "ray")
    assert result.code == 1
    assert f"error: {in_the_way}: can't be written: Is a directory; finished shards are kept" in result.err
