"""`vidpipe prep` as a process that tests can kill, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RUNS_LOCK = ".parts/runs.lock"


@dataclass(frozen=True)
class Whole:
    """What a run leaves behind when nobody disturbs it, and how long it is at work."""

    files: dict[str, bytes]
    seconds: float


def command(source: Path, out: Path, *options: str, shard_size_mb: float = 0.5) -> list[str]:
    """Makes shards, many and small ones if not told otherwise, of the videos of `motion_shards`."""
    sizes = ["--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", str(shard_size_mb)]
    prep = [sys.executable, "-m", "vidpipe", "prep", "motion", "--source", str(source), "--out", str(out)]
    return [*prep, *sizes, *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def files(out: Path) -> dict[str, bytes]:
    """Content of all files of the splits."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for split in ("train", "val")
        for path in sorted((out / split).rglob("*"))
        if path.is_file()
    }


class Run:
    """A prep process of its own group, from when it is at work in its output folder."""

    def __init__(self, arguments: list[str], out: Path, *, environment: dict[str, str] | None = None) -> None:
        self.out = out
        self._leftovers = set(out.glob("*/*.tmp"))  # of runs that were killed before
        before = self._entered()
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        while self.process.poll() is None and self._entered() == before:
            time.sleep(0.01)
        self._began = time.monotonic()

    def whole(self) -> Whole:
        """Leave it alone."""
        _, err = self.process.communicate(timeout=240)
        seconds = time.monotonic() - self._began
        assert self.process.returncode == 0, err[-2000:]
        return Whole(files(self.out), seconds)

    def wait(self, share: float, whole: Whole) -> None:
        """Until that share of the time has passed which its work should take, or its end."""
        shards = [name for name in whole.files if name.endswith(".tar")]
        left = 1 - num_finished(self.out) / len(shards)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(share * left * whole.seconds)

    def kill_worker(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one decoding child, if there is one just now."""
        for child in decoding_children(self.process.pid)[:1]:
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def kill(self, target: str, whole: Whole) -> None:
        """SIGKILL for the `parent` or the whole `group`, or Ctrl-C for the parent (`interrupt`).

        It may have ended before. It ends now, and leaves no process, and no split that is there but isn't whole.
        """
        children = decoding_children(self.process.pid)
        with suppress(ProcessLookupError):
            if target == "group":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.send_signal(signal.SIGINT if target == "interrupt" else signal.SIGKILL)
        _, err = self.process.communicate(timeout=60)
        assert wait_for_end(children), "a run leaves no child behind"
        found, complete = files(self.out), [path.parent.name for path in self.out.glob("*/manifest.json")]
        for name, content in whole.files.items():
            assert name.partition("/")[0] not in complete or found[name] == content
        if target == "interrupt" and len(complete) < len({name.partition("/")[0] for name in whole.files}):
            assert self.process.returncode == 130 and "interrupted" in err and "Traceback" not in err
            assert set(self.out.glob("*/*.tmp")) <= self._leftovers

    def _entered(self) -> int | None:
        """When a run last wrote its plan there."""
        with suppress(FileNotFoundError):
            return (self.out / RUNS_LOCK).stat().st_mtime_ns
        return None


def wait_for_shards(out: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until so many shards are finished, or the process has ended."""
    while process.poll() is None and num_finished(out) < count:
        time.sleep(0.005)


def num_finished(out: Path) -> int:
    """How many shards are finished, as long as not all are."""
    return len(list(out.glob("*/.parts/*.json")))


def wait_for_end(pids: list[int], seconds: float = 60) -> bool:
    """Whether these processes end within that time."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


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
            status = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            parents[int(folder.name)] = int(status[1])
            if b"vidpipe.prep.decoder_process" in (folder / "cmdline").read_bytes():
                children.append(int(folder.name))
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return [child for child in children if child in found]
