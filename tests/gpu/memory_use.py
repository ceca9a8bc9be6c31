"""Memory in use, of the host and of the device."""

from __future__ import annotations

import os

import torch

from vidpipe.bench.usage import group_usage


def bytes_in_use(device: torch.device) -> dict[str, int]:
    """Bytes by `host` (this process and its children) and, where there is one, `device`."""
    used = {"host": group_usage(os.getpgrp()).memory_bytes or 0}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        used["device"] = total - free
    return used
