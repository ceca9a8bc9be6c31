"""What this process may use of its machine: cores it may run on, a container's limits, its share beside other processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from vidpipe.cores import own_cores, usable_cores
from vidpipe.memory import available_bytes


class Machine:
    """One that the process is made to believe it is on."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = patch, folder
        patch.setattr("vidpipe.cgroup._ROOT", folder)
        patch.setattr("vidpipe.cgroup._MEMBERSHIP", folder / "membership")
        patch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        self.limit("0::/", {})

    def cores(self, number: int, *, allowed: int, launcher: int | None = None) -> None:
        """So many, of which the process is allowed some, and the one that started it by default the same."""
        patch = self._patch
        patch.setattr(os, "cpu_count", lambda: number)
        affinity = {0: allowed, os.getppid(): launcher or allowed}
        patch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity[pid])))

    def limit(self, membership: str, files: Mapping[str, str]) -> None:
        """What the control groups say."""
        (self._folder / "membership").write_text(f"{membership}\n")
        for name, content in files.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/pod/job", {"pod/job/cpu.max": "max 100000", "pod/cpu.max": "400000 100000", "cpu.max": "max 100000"}, 4),
        ("0::/out/of/sight", {"cpu.max": "500000 100000"}, 5),
        ("4:memory:/\n3:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_a_containers_limit_counts_like_missing_cores(
    machine: Machine, membership: str, files: dict[str, str], cores: int
) -> None:
    machine.cores(64, allowed=64)
    machine.limit(membership, files)
    assert usable_cores() == cores


def test_processes_divide_what_they_share(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    machine.cores(128, allowed=32)
    assert own_cores() == 32  # bound by a batch system, each to its own
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert own_cores() == 8  # torchrun in an allocation of 32
    machine.cores(128, allowed=32, launcher=128)
    assert own_cores() == 32  # torchrun --numa-binding
    machine.limit("0::/", {"cpu.max": "1600000 100000"})
    assert own_cores() == 4


@pytest.mark.parametrize(
    ("membership", "names", "reclaimable"),
    [
        ("0::/", ("memory.max", "memory.current", "memory.stat"), "inactive_file"),
        (
            "4:memory:/",
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
            "total_inactive_file",
        ),
    ],
)
def test_a_containers_memory_is_what_is_left_of_its_limit(
    machine: Machine, membership: str, names: tuple[str, str, str], reclaimable: str
) -> None:
    """Files that the system keeps in memory give way."""
    without = available_bytes()
    assert without is not None and without > 1000
    machine.limit(membership, dict(zip(names, ("1000", "900", f"anon 700\n{reclaimable} 150"), strict=True)))
    assert available_bytes() == 250
