"""The course of the run: each row in a process of its own, as long as there is time.

So a row begins with clean memory and CUDA context, and one that crashes or hangs takes no other with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, TypeVar

from vidpipe.bench.guard import Guard
from vidpipe.bench.progress import Progress
from vidpipe.bench.reports import LeftOut
from vidpipe.errors import VidpipeError

ROW_SECONDS = 150.0
GRACE_SECONDS = 25.0  # that the last row may take beyond the deadline
_MESSAGE_ENDS = 160
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.__exit__(kind, error, trace)

    def row(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` gives, which has to be picklable; None if it failed, and then the reason is noted."""
        if time.monotonic() > self._deadline:
            self.left_out.append(LeftOut(name, "the time that the run may take was over"))
            return None
        self._progress(name)
        begin = time.monotonic()
        try:
            value = self._isolated(work)
        except VidpipeError as error:
            self.left_out.append(LeftOut(name, str(error)))
            self._progress(f"left out after {time.monotonic() - begin:.1f} s: {error}")
            return None
        self._progress(f"{time.monotonic() - begin:.1f} s: {value}")
        return value

    def _isolated(self, work: Callable[[], T]) -> T:
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(work, theirs))
        process.start()
        theirs.close()
        assert process.pid is not None
        self._guard.add(process.pid)
        try:
            seconds = min(ROW_SECONDS, max(0.0, self._deadline + GRACE_SECONDS - time.monotonic()))
            if not ours.poll(seconds):
                _kill(process)
                raise VidpipeError(f"no result within {seconds:.0f} s")
            succeeded, result = ours.recv()
        except EOFError as error:
            process.join()
            code = process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise VidpipeError(f"its process died ({how})") from error
        finally:
            process.join(timeout=5)
            _kill(process)
            self._guard.remove(process.pid)
        if not succeeded:
            raise VidpipeError(result)
        value: T = result
        return value


def _run(work: Callable[[], Any], pipe: Connection[tuple[bool, Any], None]) -> None:
    os.setpgid(0, 0)  # what it starts can so be measured, and ended, with it
    try:
        result = (True, work())
    except Exception as error:
        message = " ".join(str(error).split())
        if len(message) > 2 * _MESSAGE_ENDS:  # DALI's say last what happened, after a stack
            message = f"{message[:_MESSAGE_ENDS]} ... {message[-_MESSAGE_ENDS:]}"
        result = (False, message if isinstance(error, VidpipeError) else f"{type(error).__name__}: {message}")
    pipe.send(result)


def _kill(process: Any) -> None:
    """End a row with all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
