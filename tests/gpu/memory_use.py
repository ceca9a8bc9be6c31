"""Memory in use, of the host and of the device."""

from __future__ import annotations

import re
from pathlib import Path

import torch


def bytes_in_use(device: torch.device) -> dict[str, int]:
    """Bytes by `host` (of this process, without files, but with what it shares with those that read for it) and, where there is
    one, `device` (of all processes there)."""
    status = Path("/proc/self/status").read_text()
    used = {"host": 1024 * sum(int(size) for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status))}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        used["device"] = total - free
    return used
