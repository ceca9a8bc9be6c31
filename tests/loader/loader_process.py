"""A loader in a process of its own; where the environment tells of several, one rank of a DDP training.

The task has `loader` (arguments of Loader), `options` (of LoaderOptions), `state` (to go on from), `batches` (how many, None for the
epoch's), `stall_at_batch` (after so many it waits for ever), `slow_fetch` (seconds for each piece of a remote shard) and
`stalled_shards` (names of remote ones that stop arriving in their midst; then there is a file OUT/stalled). Every batch becomes a line of
OUT/RANK.jsonl as soon as it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import distributed, nn

import vidpipe
from vidpipe.loader.remote import folder as remote


def slow_down(seconds: float) -> None:
    """Let every piece of a remote file take so long."""
    fetch = remote.RemoteFolder._piece

    def slow(*arguments: Any) -> bytes:
        time.sleep(seconds)
        return fetch(*arguments)

    remote.RemoteFolder._piece = slow  # type: ignore[method-assign]


def stall(names: Collection[str], stalled: Path) -> None:
    """Let none of these remote shards arrive whole; `stalled` is there as soon as one has begun."""
    fetch = remote.RemoteFolder._piece

    def stalling(files: Any, path: str, start: int, end: int) -> Any:
        if Path(path).name in names and start > 0:
            stalled.touch()
            threading.Event().wait()
        return fetch(files, path, start, end)

    remote.RemoteFolder._piece = stalling  # type: ignore[method-assign]


def run(shards: str, out: Path, task: dict[str, Any]) -> None:
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    model: nn.Module = nn.Linear(3, 1)
    if world_size > 1:
        distributed.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(model)
    remote.PIECE_BYTES = 1 << 18  # so that files have many
    if task.get("slow_fetch"):
        slow_down(task["slow_fetch"])
    if task.get("stalled_shards"):
        stall(task["stalled_shards"], out / "stalled")
    options = vidpipe.LoaderOptions(**task.get("options", {}))
    with (
        vidpipe.Loader(shards, options=options, **task["loader"]) as loader,
        (out / f"{rank}.jsonl").open("a") as lines,
    ):
        if task.get("state"):
            loader.load_state_dict(task["state"])
        for number, batch in enumerate(loader, start=1):
            model(batch.video.mean(dim=(2, 3, 4))).sum().backward()  # ranks with fewer batches would hang the others
            states: list[Any] = [None] * world_size
            if world_size > 1:
                distributed.all_gather_object(states, loader.state_dict())
                assert all(state == states[0] for state in states), states
            line = {
                "keys": batch.key,
                "padding": batch.is_padding.tolist(),
                "digest": hashlib.sha256(batch.video.numpy().tobytes()).hexdigest(),
                "state": loader.state_dict(),
            }
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            if number == task.get("stall_at_batch"):
                threading.Event().wait()
            if number == task.get("batches"):
                break
    if world_size > 1:
        distributed.destroy_process_group()
