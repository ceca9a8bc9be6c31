"""Starts training runs in processes of their own, and reads what they wrote."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forked import Forked, command, start_ranks

from tests.train.toy import toy_command
from vidpipe.errors import TrainingError
from vidpipe.train.runlog import read_metrics
from vidpipe.train.step import Learner

FIRST_OF_TWO = {
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29999",
}
UNENDING: dict[str, Any] = {"schedule": {"steps": 1_000_000}}


def start(
    shards: Path, out: Path, sections: dict[str, Any], *, processes: int = 1, env: Mapping[str, str] | None = None
) -> list[Forked]:
    """`vidpipe train` of the toy recipe, which goes on with what `out` has."""
    arguments = (*toy_command(shards, sections), "--out", out, "--resume")
    if processes == 1:
        return [Forked(command, *arguments, env=env)]
    return start_ranks(processes, command, *arguments, env=env)


def command_signalled(number: signal.Signals, step: int, pause_seconds: float, *arguments: object) -> None:
    """`vidpipe ARGUMENTS...` that gets a signal while it computes the step after so many, each of which takes some time."""
    original = Learner.take_step

    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        time.sleep(pause_seconds)
        result = original(self, *args, **kwargs)
        if kwargs["step"] == step:
            os.kill(os.getpid(), number)
        return result

    Learner.take_step = take_step  # type: ignore[method-assign]
    command(*arguments)


def command_failing(rank: int, step: int, *arguments: object) -> None:
    """`vidpipe ARGUMENTS...` that fails on one rank at a step; the usual end takes longer than anybody waits, as NCCL's does."""
    original = Learner.take_step

    def take_step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        if (self.fabric.global_rank, kwargs["step"]) == (rank, step):
            raise TrainingError("a failure of one process")
        return original(self, *args, **kwargs)

    Learner.take_step = take_step  # type: ignore[method-assign]
    threading.Thread(target=time.sleep, args=(600,)).start()
    command(*arguments)


def finish(processes: Sequence[Forked], code: int = 0) -> str:
    """Wait until all have ended with this code; what they said."""
    return "".join(process.finish(code) for process in processes)


def wait_for_step(out: Path, step: int, process: Forked) -> None:
    """Until the run in `out`, which `process` is part of, has logged this step."""
    process.wait_until(lambda: any(row["step"] >= step for row in read_metrics(out)))
