"""The process that an arm lives in: answers the requests of `ArmClient`, one at a time."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from vidpipe.bench.loader.arms.base import CENTER_CROP, JOBS, Arm, ArmBatch, ArmSetup, Job, close_batches
from vidpipe.bench.loader.proof import Proof, prove
from vidpipe.errors import VidpipeError


@dataclass(frozen=True, slots=True)
class Start:
    """Import the arm ("module:Class"), say whether it can run, and let it convert the clips if it has to."""

    target: str
    setup: ArmSetup


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an arm is, and why it can't run (`objection`, empty when it can)."""

    title: str
    about: str
    jobs: tuple[Job, ...]
    objection: str


@dataclass(frozen=True, slots=True)
class Prove:
    """Prove the arm's clips to be the stored ones; answered by a `Proof`."""

    job: Job
    num_batches: int


@dataclass(frozen=True, slots=True)
class Open:
    """Begin to give batches; answered, once the first is there, by the seconds that this took."""

    job: Job


@dataclass(frozen=True, slots=True)
class Measure:
    """Take batches for at least `seconds`; answered by a `Window`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """Clips that were taken, and the seconds that it took; `taken` has those before the clock started, too."""

    clips: int
    seconds: float
    taken: int


@dataclass(frozen=True, slots=True)
class Close:
    """Stop giving batches."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong in answering, other than a VidpipeError: the exception in one line and in full."""

    message: str
    trace: str


Request = Start | Prove | Open | Measure | Close
Reply = Introduction | Proof | float | Window | VidpipeError | Failed | None


class _Host:
    """The arm, and its open batches."""

    def __init__(self) -> None:
        self._kind: type[Arm] | None = None
        self._setup: ArmSetup | None = None
        self._batches: Iterator[ArmBatch] | None = None

    def answer(self, request: Request) -> Reply:
        """Do what is asked."""
        match request:
            case Start(target, setup):
                return self._start(target, setup)
            case Prove(job, num_batches):
                arm = self._make(centred=True)
                batches = arm.batches(job)
                try:
                    return prove(arm, job, batches, num_batches=num_batches)
                finally:
                    close_batches(batches)
            case Open(job):
                begin = time.perf_counter()
                self._batches = self._make(centred=False).batches(job)
                next(self._batches)
                return time.perf_counter() - begin
            case Measure(seconds):
                return self._measure(seconds)
            case Close():
                if self._batches is not None:
                    close_batches(self._batches)
                self._batches = None
                return None

    def _start(self, target: str, setup: ArmSetup) -> Introduction:
        module, _, name = target.partition(":")
        try:
            kind: type[Arm] = getattr(importlib.import_module(module), name)
            objection = kind.objection(setup)
        except ImportError as error:
            return Introduction("", "", JOBS, f"can't be imported: {error}")
        self._kind, self._setup = kind, setup
        if not objection:
            kind(setup).prepare()
        return Introduction(kind.title, kind.about, tuple(job for job in JOBS if job in kind.jobs), objection)

    def _make(self, *, centred: bool) -> Arm:
        assert self._kind is not None and self._setup is not None
        return self._kind(replace(self._setup, crop=CENTER_CROP) if centred else self._setup)

    def _measure(self, seconds: float) -> Window:
        """From one batch to another. Workers give theirs in bursts of one each, so whole bursts are taken."""
        assert self._batches is not None and self._setup is not None
        before = len(next(self._batches).keys)
        clips = count = 0
        begin = time.perf_counter()
        while True:
            clips += len(next(self._batches).keys)
            count += 1
            elapsed = time.perf_counter() - begin
            if elapsed >= seconds and count % self._setup.workers == 0:
                return Window(clips, elapsed, before + clips)


def serve(pipe: Connection[Reply, Request], log_path: str) -> None:
    """Be an arm's process: answer until the pipe closes; what is printed goes to the log."""
    os.setpgid(0, 0)
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    host = _Host()
    while True:
        try:
            request = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        reply: Reply
        try:
            reply = host.answer(request)
        except VidpipeError as error:
            reply = error
        except Exception as error:
            reply = Failed(f"{type(error).__name__}: {' '.join(str(error).split())}", traceback.format_exc())
        pipe.send(reply)
