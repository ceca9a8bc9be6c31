"""The benchmark's side of an arm's process: requests with a time limit, freezing, what it uses, and its end.

Between its turns an arm is frozen (SIGSTOP) with all its workers. So it neither takes time from the others nor prepares
batches ahead that its next turn would get for nothing: each turn goes on where the last one stopped, in full flow.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from vidpipe.bench.guard import Guard
from vidpipe.bench.loader.arm_process import (
    Close,
    Failed,
    Introduction,
    Measure,
    Open,
    Prove,
    Reply,
    Request,
    Start,
    Window,
    serve,
)
from vidpipe.bench.loader.arms.base import ArmSetup, Job
from vidpipe.bench.loader.proof import Proof
from vidpipe.bench.usage import Usage, group_usage
from vidpipe.errors import VidpipeError

ANSWER_SECONDS = 300.0


class ArmClient:
    """One arm in a process group of its own.

    Args:
        name: of the arm, for messages.
        target: its class, "module:Class".
        setup: what it is given.
        guard: ends it when nobody else does.
    """

    def __init__(self, name: str, target: str, setup: ArmSetup, *, guard: Guard) -> None:
        self.name = name
        self._log = tempfile.NamedTemporaryFile(prefix="vidpipe-bench-")  # noqa: SIM115  closed by `kill`
        self._pipe: Connection[Request, Reply]
        self._pipe, theirs = Pipe()
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=serve, args=(theirs, self._log.name), daemon=False)
        self._process.start()
        theirs.close()
        guard.add(self._group)
        self._send(Start(target, setup))

    def introduction(self) -> Introduction:
        """The answer to the start, which was asked for when this was made."""
        answer = self._receive("start")
        assert isinstance(answer, Introduction)
        return answer

    def begin_proof(self, job: Job, num_batches: int) -> None:
        """Have it prove that its clips are the stored ones; `end_proof` waits for that."""
        self._send(Prove(job, num_batches))

    def end_proof(self, job: Job) -> Proof:
        """How its clips compare.

        Raises:
            VidpipeError: they differ, or the arm failed.
        """
        answer = self._receive(job)
        assert isinstance(answer, Proof)
        return answer

    def open(self, job: Job) -> float:
        """Begin to give batches; the seconds until the first one. The arm runs on until `freeze`."""
        self._send(Open(job))
        answer = self._receive(job)
        assert isinstance(answer, float)
        return answer

    def measure(self, seconds: float) -> Window:
        """Take batches for at least that long."""
        self._send(Measure(seconds))
        answer = self._receive("measuring")
        assert isinstance(answer, Window)
        return answer

    def close_batches(self) -> None:
        """Stop giving batches."""
        self._send(Close())
        self._receive("closing")

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def usage(self) -> Usage:
        """What its processes use, from /proc."""
        return group_usage(self._group)

    def kill(self) -> None:
        """End all its processes."""
        self._signal(signal.SIGKILL)
        self._process.kill()  # in case it is not yet a group of its own
        self._process.join()
        self._pipe.close()
        self._log.close()

    @property
    def _group(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def _send(self, request: Request) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(request)

    def _receive(self, what: str) -> Reply:
        """The answer to the last request."""
        try:
            if not self._pipe.poll(ANSWER_SECONDS):
                raise VidpipeError(f"{self.name}: {what}: no answer within {ANSWER_SECONDS:g} s")
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise VidpipeError(f"{self.name}: {what}: its process died ({how}){self._last_words()}") from error
        if isinstance(answer, VidpipeError):
            raise answer
        if isinstance(answer, Failed):
            raise VidpipeError(f"{self.name}: {what}: {answer.message}") from RuntimeError(answer.trace)
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1][:300]}" if said else ""

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._group, number)
