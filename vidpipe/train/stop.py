"""Stopping in an orderly way: the step is finished, the run is saved, and then it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopRequest:
    """Notes Ctrl-C, SIGTERM and SIGUSR1 (what Slurm sends before it takes the machine away) while it is entered.

    A second signal of the same kind acts as it would without this: a second Ctrl-C interrupts at once.
    Outside the main thread, where Python can't take signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, self._before.pop(number))
