"""Memory in use, of the host and of the device."""

from __future__ import annotations

import re
from pathlib import Path

import torch


def bytes_in_use(device: torch.device) -> dict[str, int]:
    """Bytes by `host` (this process's own, without files) and, where there is one, `device` (of all processes there)."""
    status = Path("/proc/self/status").read_text()
    used = {"host": 1024 * int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0])}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        used["device"] = total - free
    return used
