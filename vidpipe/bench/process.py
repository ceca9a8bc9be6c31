"""A process that works for a benchmark: with all that it starts it is one group, which is measured, frozen and ended as a whole.

A frozen arm (SIGSTOP) neither takes time from the others nor prepares batches ahead that its next turn would get for nothing: each
turn goes on where the last one stopped, in full flow.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from vidpipe.bench.guard import Guard, deaf_to_interrupts
from vidpipe.bench.usage import Usage, group_usage
from vidpipe.errors import VidpipeError

# Characters of both ends of a long message; DALI's and LitData's say last what happened, after a stack.
MESSAGE_ENDS = 160

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """An error on its way out of a process, other than a VidpipeError: in one line and in full."""

    message: str
    trace: str


class GroupProcess:
    """Runs `main(pipe, *arguments)`, `serve` or `answer`. What it prints goes to a log. A context manager, which kills it.

    Args:
        name: of the arm, for messages.
        main: a module's function.
        guard: ends it when nobody else does.
        start: how multiprocessing starts it.
        patience_seconds: for each answer.
    """

    def __init__(
        self,
        name: str,
        main: Callable[..., None],
        *arguments: object,
        guard: Guard,
        start: Literal["spawn", "forkserver"] = "forkserver",
        patience_seconds: float | None = None,
    ) -> None:
        self.name, self._guard, self._patience_seconds = name, guard, patience_seconds
        self._log = tempfile.NamedTemporaryFile(prefix="vidpipe-bench-")  # noqa: SIM115  closed by `kill`
        self._pipe, theirs = Pipe()
        context: Any = multiprocessing.get_context(start)
        self._process: BaseProcess = context.Process(target=_run, args=(main, theirs, self._log.name, *arguments))
        with deaf_to_interrupts():
            self._process.start()
        theirs.close()
        guard.add(self.group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def group(self) -> int:
        """Number of the process group."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, method: Callable[..., object], *arguments: object) -> None:
        """Ask for a call of a host's method (see `serve`), which `receive` waits for; that also sees whether it has died."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((method, arguments))

    def call(self, what: str, method: Callable[..., T], *arguments: object) -> T:
        """Ask, and wait for what the method gives; raises as `receive`."""
        self.send(method, *arguments)
        result: T = self.receive(what)
        return result

    def receive(self, what: str = "") -> Any:
        """Its next answer.

        Args:
            what: it is about, for messages.

        Raises:
            VidpipeError: the one that it sends, or it raised another error, died, or takes too long.
        """
        where = "".join(f"{part}: " for part in (self.name, what) if part)
        try:
            if not self._pipe.poll(self._patience_seconds):
                raise VidpipeError(f"{where}no answer within {self._patience_seconds:.0f} s{self._last_words()}")
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise VidpipeError(f"{where}its process died ({how}){self._last_words()}") from error
        if isinstance(answer, VidpipeError):
            raise answer
        if isinstance(answer, Failed):
            raise VidpipeError(f"{where}{answer.message}") from RuntimeError(answer.trace)
        return answer

    def join(self, seconds: float | None = None) -> None:
        """Wait for its end, no longer than that."""
        self._process.join(seconds)

    def freeze(self) -> None:
        """Stop the group where it is."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def usage(self) -> Usage:
        """What the group uses."""
        return group_usage(self.group)

    def kill(self) -> None:
        """End the group."""
        self._signal(signal.SIGKILL)
        self._process.kill()  # in case it is not yet a group of its own
        self._process.join()
        self._guard.remove(self.group)
        self._pipe.close()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.group, number)

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f": {said[-1].strip()[:300]}" if said else ""


def answer(pipe: Connection[object, None], work: Callable[..., object], *arguments: object) -> None:
    """Do one thing and end."""
    pipe.send(_outcome(partial(work, *arguments)))


def serve(
    pipe: Connection[object, tuple[Callable[..., object], tuple[object, ...]]], host_class: Callable[[], object]
) -> None:
    """Make a host, and call its methods as they are asked for, until the pipe closes."""
    host = host_class()
    with suppress(EOFError, ConnectionResetError):
        while True:
            method, arguments = pipe.recv()
            pipe.send(_outcome(partial(method, host, *arguments)))


def _outcome(work: Callable[[], object]) -> object:
    """What `work` gives, or the error that it raises."""
    try:
        return work()
    except VidpipeError as error:
        return error
    except Exception as error:
        message = " ".join(str(error).split())
        if len(message) > 2 * MESSAGE_ENDS:
            message = f"{message[:MESSAGE_ENDS]} ... {message[-MESSAGE_ENDS:]}"
        return Failed(f"{type(error).__name__}: {message}", traceback.format_exc())


def _run(main: Callable[..., None], pipe: Connection[Any, Any], log_path: str, *arguments: object) -> None:
    os.setpgid(0, 0)
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    main(pipe, *arguments)
