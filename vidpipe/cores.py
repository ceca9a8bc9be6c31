"""How many cores there are for this process: the default number of workers everywhere."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on; a batch system or container often gives fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
