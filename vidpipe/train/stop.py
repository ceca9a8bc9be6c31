"""Stopping in an orderly way: the step is finished, the run is saved, and then it ends."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import distributed

LAUNCHER_GONE = "the end of torchrun"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
_REASONS = (*_SIGNALS, LAUNCHER_GONE)
_ASK_EVERY = 8
_SLOW_SECONDS = 0.5


class StopRequest:
    """Notes Ctrl-C, SIGTERM and SIGUSR1 (what Slurm sends before it takes the machine away) while it is entered.

    A second signal of the same kind acts as it would without this: a second Ctrl-C interrupts at once.
    Outside the main thread, where Python can't take signals, it does nothing.
    A process that torchrun started notes torchrun's end too, for then nothing would ever end it.

    Attributes:
        signal: name of the signal that asked for the end, or `LAUNCHER_GONE`; None as long as nothing does.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._agreed = False
        self._asked_step: int | None = None
        self._asked_at, self._ask_after = 0.0, 1
        self._before: dict[int, Any] = {}
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.getsignal(number) or signal.SIG_DFL  # first: the handler needs it
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, fabric: Fabric, *, step: int | None = None) -> bool:
        """Whether to stop; several processes agree on it, so all have to call it equally often, with the same steps.

        They ask each other after every step that takes half a second or more, and after every eighth otherwise: so a run ends
        with the step, or within four seconds. How long a step takes they agree on too: the slowest process counts.

        Args:
            step: number of steps taken; None, within an evaluation, asks in any case.
        """
        if self.signal is None and self._launcher not in (None, os.getppid()):
            self.signal = LAUNCHER_GONE
        if fabric.world_size == 1:
            return self.signal is not None
        if not self._agreed and (
            step is None or self._asked_step is None or step - self._asked_step >= self._ask_after
        ):
            self._ask(fabric, step)
        return self._agreed

    def _ask(self, fabric: Fabric, step: int | None) -> None:
        """Exchange what asked each process to stop, and how long a step takes it: all get the same maximum of both."""
        now, seconds = time.monotonic(), math.inf
        if step is not None and self._asked_step is not None:
            seconds = (now - self._asked_at) / (step - self._asked_step)
        reason = _REASONS.index(self.signal) + 1 if self.signal is not None else 0
        own = torch.tensor([float(reason), seconds], device=fabric.device)
        distributed.all_reduce(own, distributed.ReduceOp.MAX)  # Fabric's own has the host wait at a barrier first
        agreed_reason, longest = own.tolist()
        if agreed_reason:
            self._agreed, self.signal = True, _REASONS[int(agreed_reason) - 1]
        if step is not None:
            self._asked_step, self._asked_at = step, now
            self._ask_after = 1 if longest >= _SLOW_SECONDS else _ASK_EVERY

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, self._before[number])
