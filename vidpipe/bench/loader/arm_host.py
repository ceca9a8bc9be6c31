"""What an arm of the loader benchmark does in its process, one thing after the other as it is asked."""

from __future__ import annotations

import pkgutil
import time
from dataclasses import dataclass, replace

from vidpipe.bench.loader.arms.base import CENTER_CROP, JOBS, Arm, ArmSetup, Batches, Job
from vidpipe.bench.loader.proof import Proof, prove


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an arm is, and why it can't run (`objection`, empty when it can)."""

    title: str
    about: str
    jobs: tuple[Job, ...]
    objection: str


@dataclass(frozen=True, slots=True)
class Window:
    """Clips that were taken, and the seconds that it took; `taken` has those before the clock started, too."""

    clips: int
    seconds: float
    taken: int


class ArmHost:
    """An arm with its open batches, in a process of its own."""

    def __init__(self) -> None:
        self._kind: type[Arm] | None = None
        self._setup: ArmSetup | None = None
        self._batches: Batches | None = None

    def start(self, target: str, setup: ArmSetup) -> Introduction:
        """Import the arm ("module:Class"), say whether it can run, and let it convert the clips if it has to."""
        try:
            kind: type[Arm] = pkgutil.resolve_name(target)
            objection = kind.objection(setup)
        except ImportError as error:
            return Introduction("", "", JOBS, f"can't be imported: {error}")
        self._kind, self._setup = kind, setup
        if not objection:
            kind(setup).prepare()
        return Introduction(kind.title, kind.about, tuple(job for job in JOBS if job in kind.jobs), objection)

    def prove(self, job: Job, num_batches: int) -> Proof:
        """Prove the arm's clips to be the stored ones."""
        return prove(self._make(centred=True), job, num_batches=num_batches)

    def open(self, job: Job) -> float:
        """Begin to give batches; the seconds until the first one. The arm runs on until it is frozen."""
        begin = time.perf_counter()
        self._batches = self._make(centred=False).batches(job)
        next(self._batches)
        return time.perf_counter() - begin

    def measure(self, seconds: float) -> Window:
        """Take batches for at least that long. Workers give theirs in bursts of one each, so whole bursts are taken."""
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

    def close(self) -> None:
        """Stop giving batches."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def _make(self, *, centred: bool) -> Arm:
        assert self._kind is not None and self._setup is not None
        return self._kind(replace(self._setup, crop=CENTER_CROP) if centred else self._setup)
