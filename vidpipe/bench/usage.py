"""What a group of processes uses, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a group use together.

    Attributes:
        cpu_seconds: since they began, with those of their children that have ended.
        memory_bytes: of their own, without files and libraries that are mapped; None where the system doesn't tell.
        leader_bytes: what the group's first process has of that for itself alone.
    """

    cpu_seconds: float
    memory_bytes: int | None
    leader_bytes: int


def group_usage(group: int) -> Usage:
    """What a process group uses; nothing where there is no /proc.

    Shared memory counts once. Unnamed files in memory count whether or not they are mapped at that moment.
    """
    cpu_seconds, own, leader, mapped = 0.0, 0, 0, 0
    unnamed: dict[int, int] = {}
    for folder in _group_members(group):
        with suppress(OSError, ValueError):
            cpu_seconds += _cpu_seconds(folder)
            anonymous, shared = _own_bytes(folder)
            own, mapped = own + anonymous, mapped + shared
            leader = anonymous if folder.name == str(group) else leader
            unnamed |= _unnamed_files(folder)
    return Usage(cpu_seconds, own + max(mapped, sum(unnamed.values())) or None, leader)


def group_cpu_seconds(group: int) -> float:
    """Only that, which is known at once."""
    total = 0.0
    for folder in _group_members(group):
        with suppress(OSError, ValueError):
            total += _cpu_seconds(folder)
    return total


def _cpu_seconds(folder: Path) -> float:
    """Of a process, and of those of its children that have ended."""
    return sum(map(int, _stat(folder)[11:15])) / os.sysconf("SC_CLK_TCK")


def _group_members(group: int) -> list[Path]:
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if int(_stat(folder)[2]) == group:
                members.append(folder)
    return members


def _stat(folder: Path) -> list[str]:
    """What the system says of a process, from its state on, which is the third field of proc(5)."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _own_bytes(folder: Path) -> tuple[int, int]:
    """A process's share of anonymous and of shared memory that it has mapped, without mapped files."""
    shares = {"Pss_Anon": 0, "Pss_Shmem": 0}
    for line in (folder / "smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in shares:
            shares[name] = int(value.split()[0]) * 1024
    return shares["Pss_Anon"], shares["Pss_Shmem"]


def _unnamed_files(folder: Path) -> dict[int, int]:
    """Bytes of the files in memory (memfd) that a process has open, by their inodes."""
    found = {}
    for link in (folder / "fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith("/memfd:"):
                status = link.stat()
                found[status.st_ino] = status.st_blocks * 512
    return found
