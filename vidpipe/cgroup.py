"""Limits that a container or a batch system sets by Linux's control groups, of either version; elsewhere there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_MEMORY_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def core_limit() -> int | None:
    """Cores whose time the processes of this one's group may take together, rounded up; None where nothing limits it."""
    limits = []
    for folder in _folders("cpu"):
        match _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]:
            case [quota, period] if quota not in ("max", "-1"):
                limits.append(math.ceil(int(quota) / int(period)))
    return min(limits, default=None)


def memory_left() -> int | None:
    """Bytes that the processes of this one's group may still take, where file pages give way; None where nothing limits it."""
    left = []
    for folder in _folders("memory"):
        for limit, usage, reclaimable in _MEMORY_FILES:
            match [*_words(folder / limit), *_words(folder / usage)]:
                case [most, taken] if most != "max":
                    words = _words(folder / "memory.stat")
                    statistics = dict(zip(words[::2], words[1::2], strict=True))
                    left.append(
                        max(0, int(most) - int(taken) + sum(int(statistics.get(name, 0)) for name in reclaimable))
                    )
    return min(left, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Of the groups that limit this process: its own and all above it. Within a container some may be out of sight."""
    for line in _text(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", maxsplit=2)  # of version 2 it names no controllers
        if not controllers or controller in controllers.split(","):
            root = _ROOT / controller if controllers else _ROOT
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
