"""The course of the run: each row in a process of its own, as long as there is time.

So a row begins with clean memory and CUDA context, and one that crashes or hangs takes no other with it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Self, TypeVar

from vidpipe.bench.guard import Guard
from vidpipe.bench.process import GroupProcess, answer
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.running import Progress
from vidpipe.errors import VidpipeError

ROW_SECONDS = 150.0
GRACE_SECONDS = 25.0  # that the last row may take beyond the deadline
_END_SECONDS = 5.0  # that a row which has given its result may take to end
_PRELOADED = (
    "torch",
    "torchvision",
    "vidpipe.bench.gpu.models",
)  # once for all rows, which are forks; nothing that might ask for a GPU

T = TypeVar("T")


class Course:
    """Runs the rows; a context manager.

    Args:
        deadline: on `time.monotonic`'s clock; what has not begun by then is left out, and what takes much longer is ended.
        progress: is told what each row gave, too, so that a run that is ended from outside has not been in vain.
    """

    def __init__(self, *, deadline: float, progress: Progress) -> None:
        self.left_out: list[LeftOut] = []
        self._deadline = deadline
        self._progress = progress
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(_PRELOADED))
        self._guard = Guard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._guard.__exit__(*error)

    def row(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` gives, which has to be picklable; None if it failed, and then the reason is noted."""
        begin = time.monotonic()
        if begin > self._deadline:
            self.left_out.append(LeftOut(name, "the time that the run may take was over"))
            return None
        self._progress(name)
        patience = min(ROW_SECONDS, self._deadline + GRACE_SECONDS - begin)
        try:
            with GroupProcess("", answer, work, guard=self._guard, patience_seconds=patience) as process:
                value: T = process.receive()
                process.join(_END_SECONDS)
        except VidpipeError as error:
            self.left_out.append(LeftOut(name, str(error)))
            self._progress(f"left out after {time.monotonic() - begin:.1f} s: {error}")
            return None
        self._progress(f"{time.monotonic() - begin:.1f} s: {value}")
        return value
