"""How many cores there are for this process: the default number of workers everywhere."""

from __future__ import annotations

import os

from vidpipe.cgroup import core_limit
from vidpipe.environment import whole_from_environment


def usable_cores() -> int:
    """Cores that this process may use; a batch system or container often gives fewer than the machine has."""
    allowed = _allowed_cores()
    return min(allowed, core_limit() or allowed)


def own_cores() -> int:
    """Cores for this process alone, by the number of processes on this machine that its launcher says (LOCAL_WORLD_SIZE).

    Processes that may all run on the same cores divide them. One that may run on no more than its share of the machine has
    cores of its own already, as a batch system's tasks do, unless torchrun, which started it, may run on the same ones. How many
    cores' time a container may take is divided in any case.

    Raises:
        UsageError: LOCAL_WORLD_SIZE is no such number.
    """
    allowed, processes = _allowed_cores(), whole_from_environment("LOCAL_WORLD_SIZE", 1, least=1)
    bound = allowed <= (os.cpu_count() or 1) // processes and not _shares_with_torchrun()
    share = allowed if bound else allowed // processes
    limit = core_limit()
    return max(1, share if limit is None else min(share, limit // processes))


def _allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares_with_torchrun() -> bool:
    if "TORCHELASTIC_RUN_ID" not in os.environ or not hasattr(os, "sched_getaffinity"):
        return False
    return os.sched_getaffinity(0) == os.sched_getaffinity(os.getppid())
