"""500 videos of mixed codecs, 20 of them bad in every way: 480 written, 20 rejected for the true reason, killed or not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.video.ffmpeg import run_ffmpeg

pytestmark = pytest.mark.slow

CODECS = {
    "h264.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-movflags", "+faststart"],
    "hevc.mkv": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", "4"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-q:v", "4"],
    "vp8.webm": ["-c:v", "libvpx", "-deadline", "realtime"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"],
}
BAD = {"empty": 4, "not-a-video": 4, "truncated": 4, "no-video-stream": 4, "damaged": 4}


def _make(path: Path, number: int, options: list[str]) -> None:
    picture = f"testsrc2=size=96x64:rate=25:duration=1.2,hue=h={number * 23}"
    run_ffmpeg(
        ["-f", "lavfi", "-i", picture, *options, "-pix_fmt", "yuv420p", "-threads", "1", "-y", f"file:{path}"],
        timeout_seconds=60,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 good videos (12 distinct ones, 40 times each) and 20 bad ones in two class folders."""
    folder = tmp_path_factory.mktemp("five-hundred")
    originals = folder / "originals"
    originals.mkdir()
    for number in range(12):
        name = list(CODECS)[number % len(CODECS)]
        _make(originals / f"{number:02d}-{name}", number, CODECS[name])
    videos = folder / "videos"
    for label in ("a", "b"):
        (videos / label).mkdir(parents=True)
    for number in range(480):
        original = sorted(originals.iterdir())[number % 12]
        shutil.copy(original, videos / "ab"[number % 2] / f"good {number:03d} {original.name}")
    content = (originals / "00-h264.mp4").read_bytes()
    tone = folder / "tone.mp4"
    run_ffmpeg(["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", "-y", f"file:{tone}"], timeout_seconds=60)
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 400] = bytes(range(200)) * 2
    contents = {
        "empty": b"",
        "not-a-video": b"This is a text. " * 50,
        "truncated": content[: len(content) * 3 // 10],
        "no-video-stream": tone.read_bytes(),
        "damaged": bytes(middle),
    }
    for reason, count in BAD.items():
        for number in range(count):
            (videos / "ab"[number % 2] / f"bad {reason} {number}.mp4").write_bytes(contents[reason])
    return videos


def _command(source: Path, out: Path) -> list[str]:
    clip = ["--frames", "8", "--clips", "1", "--height", "64", "--shard-size-mb", "3", "--max-rejects", "4%"]
    return [sys.executable, "-m", "vidpipe", "prep", "folder", "--source", str(source), "--out", str(out), *clip]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_video_is_written_or_rejected_for_its_true_reason(
    source: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    whole = tmp_path / "whole"
    assert subprocess.run(_command(source, whole), capture_output=True, check=False).returncode == 0
    rejects = [json.loads(line) for line in (whole / "train/rejects.jsonl").read_text().splitlines()]
    assert all(reject["path"].split("/")[1].split()[1] == reject["reason"] for reject in rejects), rejects
    assert Counter(reject["reason"] for reject in rejects) == BAD
    counts = json.loads((whole / "train/manifest.json").read_text())["counts"]
    assert (counts["videos"], counts["written"], counts["rejected"]) == (500, 480, 20)
    assert vidpipe("verify", whole, "--deep").code == 0

    killed = tmp_path / "killed"
    for finished in (2, 5):
        process = subprocess.Popen(_command(source, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(killed.glob("*/.parts/*.json"))) < finished:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(_command(source, killed), capture_output=True, check=False).returncode == 0
    assert _files(killed) == _files(whole)
