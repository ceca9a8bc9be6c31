"""Memory that there is for this process, as Linux tells of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vidpipe.cgroup import memory_left


def available_bytes() -> int | None:
    """What this process can still have of its machine's, or container's, memory without swapping; None where no one says."""
    sizes = [memory_left()]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min((size for size in sizes if size is not None), default=None)


def resident_bytes() -> int | None:
    """What this process holds in memory; None where the system doesn't say."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
