"""500 videos of mixed codecs, 20 of them bad in every way: 480 written, 20 rejected for the true reason, disturbed or not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import RunCommand
from prep.interrupted_runs import Run
from prep.mixed_videos import make_bad, make_good

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FAULTY_AV = Path(__file__).parent / "faulty_av"
# While one worker waits for the video that hangs, the other goes on; so the time limit can be long.
TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class _Source:
    """Folder of the videos, and why each bad one has to be rejected, by path."""

    folder: Path
    reasons: Mapping[str, str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> _Source:
    """480 good videos (12 distinct ones, 40 times each) and 20 bad ones in two class folders."""
    folder, originals = tmp_path_factory.mktemp("five-hundred"), tmp_path_factory.mktemp("originals")
    for label in "ab":
        (folder / label).mkdir()
    good = make_good(originals)
    for number in range(480):
        original = good[number % len(good)]
        shutil.copy(original, folder / "ab"[number % 2] / f"good {number:03d} {original.name}")
    bad = {
        **make_bad(originals),
        "hangs.mp4": (good[0].read_bytes(), "timeout"),
        "segfaults.mp4": (good[0].read_bytes(), "crash"),
    }
    reasons = {}
    for number, (name, (content, reason)) in enumerate(bad.items()):
        path = f"{'ab'[number % 2]}/{name}"
        (folder / path).write_bytes(content)
        reasons[path] = reason
    return _Source(folder, reasons)


def _run(source: _Source, out: Path) -> Run:
    clip = ["--frames", "8", "--stride", "4", "--clips", "1", "--height", "64", "--timeout", str(TIMEOUT_SECONDS)]
    prep = [sys.executable, "-m", "vidpipe", "prep", "folder", "--source", str(source.folder), "--out", str(out)]
    arguments = [*prep, *clip, "--shard-size-mb", "3", "--max-rejects", "4%", "--workers", "2"]
    modules = os.pathsep.join([str(FAULTY_AV), os.environ.get("PYTHONPATH", "")])
    return Run(arguments, out, environment={"PYTHONPATH": modules})


def test_every_video_is_written_or_rejected_for_its_true_reason(
    source: _Source, tmp_path: Path, vidpipe: RunCommand
) -> None:
    whole = _run(source, tmp_path / "whole").whole()
    rejects = [json.loads(line) for line in whole.files["train/rejects.jsonl"].decode().split("\n")[:-1]]
    assert {reject["path"]: reject["reason"] for reject in rejects} == source.reasons
    assert len(rejects) == 20
    counts = json.loads(whole.files["train/manifest.json"])["counts"]
    assert (counts["videos"], counts["written"], counts["rejected"]) == (500, 480, 20)
    assert vidpipe("verify", tmp_path / "whole", "--deep").code == 0

    disturbed, moments = tmp_path / "disturbed", random.Random(500)
    for target in ("parent", "interrupt", "group"):
        run = _run(source, disturbed)
        run.wait(moments.uniform(0.1, 0.4), whole)
        # The signal that ends a child over `segfaults.mp4`, since the reject names the second one of that video.
        run.kill_worker(signal.SIGSEGV)
        run.wait(moments.uniform(0, 0.3), whole)
        run.kill(target, whole)
    assert _run(source, disturbed).whole().files == whole.files
