"""`vidpipe prep motion` as a process that tests can kill, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def command(source: Path, out: Path, *options: str, shard_size_mb: float = 0.5) -> list[str]:
    """Makes shards, many and small ones if not told otherwise, of the videos of `motion_shards`."""
    sizes = ["--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", str(shard_size_mb)]
    prep = [sys.executable, "-m", "vidpipe", "prep", "motion", "--source", str(source), "--out", str(out)]
    return [*prep, *sizes, *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def files(out: Path) -> dict[str, bytes]:
    """Content of all files of both splits."""
    return {
        f"{split}/{path.name}": path.read_bytes()
        for split in ("train", "val")
        for path in sorted((out / split).rglob("*"))
        if path.is_file()
    }


def wait_for_shards(out: Path, process: subprocess.Popen[bytes], count: int) -> None:
    """Until so many shards are finished, or the process has ended."""
    while process.poll() is None and len(list(out.glob("*/.parts/*.json"))) < count:
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether there is such a process that isn't waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def decoding_children(pid: int) -> list[int]:
    """prep's decoding children among a process's children, their children and so on."""
    parents, children = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"vidpipe.prep.decoder_process" in (folder / "cmdline").read_bytes():
                children.append(int(folder.name))
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return [child for child in children if child in found]
