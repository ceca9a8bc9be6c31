"""Stopping in an orderly way: the step is finished, the run is saved, and then it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
_ASK_EVERY = 8


class StopRequest:
    """Notes Ctrl-C, SIGTERM and SIGUSR1 (what Slurm sends before it takes the machine away) while it is entered.

    A second signal of the same kind acts as it would without this: a second Ctrl-C interrupts at once.
    Outside the main thread, where Python can't take signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._agreed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def agreed(self, fabric: Fabric, *, number: int) -> bool:
        """Whether to stop; several processes agree on it, so all have to call it with the same numbers.

        Args:
            number: of the step or batch; they ask each other at every eighth one.
        """
        if fabric.world_size > 1:
            if number % _ASK_EVERY == 0 and not self._agreed:
                asked = torch.tensor(float(self.signal is not None), device=fabric.device)
                self._agreed = float(cast(Tensor, fabric.all_reduce(asked, reduce_op="sum"))) > 0
                if self._agreed and self.signal is None:
                    self.signal = "SIGTERM"
            return self._agreed
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, self._before.pop(number))
