"""Finds where the main thread waits for the GPU."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def host_syncs(device: torch.device) -> Iterator[list[str]]:
    """Where the main thread waited for the device within the block; other threads may."""
    found: list[str] = []

    def show(message: object, *_: object, **__: object) -> None:
        # Switching the mode on warns, too, the first time.
        if (
            "called a synchronizing CUDA operation" in str(message)
            and threading.current_thread() is threading.main_thread()
        ):
            frames = [frame for frame in traceback.extract_stack() if "vidpipe" in frame.filename]
            found.append(f"{message}: {frames[-1].filename}:{frames[-1].lineno}" if frames else str(message))

    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
