"""How many cores there are for this process: the default number of workers everywhere."""

from __future__ import annotations

import os

from vidpipe.environment import whole_from_environment


def usable_cores() -> int:
    """Cores that this process may run on; a batch system or container often gives fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """Cores for this process alone, by the number of processes on this machine that its launcher says (LOCAL_WORLD_SIZE).

    Processes that may all run on the same cores divide them. One that may run on no more than its share of the machine has
    cores of its own already, as a batch system's tasks do.

    Raises:
        UsageError: LOCAL_WORLD_SIZE is no such number.
    """
    cores, processes = usable_cores(), whole_from_environment("LOCAL_WORLD_SIZE", 1, least=1)
    shared = cores > (os.cpu_count() or 1) // processes
    return max(1, cores // processes) if shared else cores
