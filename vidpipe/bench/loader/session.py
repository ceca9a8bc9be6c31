"""The loader benchmark at work: arms are started, proven to give the same clips, and timed in turns."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidpipe.bench.guard import Guard
from vidpipe.bench.loader.arm_host import ArmHost, Introduction, Window
from vidpipe.bench.loader.arms import ARMS, CEILING
from vidpipe.bench.loader.arms.base import ArmSetup, Job
from vidpipe.bench.loader.proof import Proof
from vidpipe.bench.loader.table import ArmResult
from vidpipe.bench.process import GroupProcess, serve
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.running import Progress, in_turn
from vidpipe.shards.manifest import load_manifest

# Once for all arms, which are forks.
PRELOADED = ("torch", "torchvision.transforms.v2", "vidpipe.bench.loader.arm_host")
ANSWER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Pace:
    """For how long arms are timed.

    Attributes:
        rounds: turns of each arm.
        seconds: least length of a turn.
        proof_batches: that are compared of each arm beforehand.
    """

    rounds: int
    seconds: float
    proof_batches: int


@dataclass(slots=True)
class RunningArm:
    """An arm that can run, and what was measured of the job at hand."""

    process: GroupProcess
    introduction: Introduction
    windows: list[Window] = field(default_factory=list)
    cpu_seconds: float = 0.0
    memory_bytes: int | None = None

    @property
    def name(self) -> str:
        """As in `ARMS`."""
        return self.process.name

    def reset(self) -> None:
        """Forget what was measured."""
        self.windows, self.cpu_seconds, self.memory_bytes = [], 0.0, None

    def turn(self, seconds: float) -> None:
        """Let it run, measure, and freeze it again."""
        before = self.process.usage()
        self.process.thaw()
        window = self.process.call("measuring", ArmHost.measure, seconds)
        self.process.freeze()
        after = self.process.usage()
        self.windows.append(window)
        self.cpu_seconds += after.cpu_seconds - before.cpu_seconds
        if after.memory_bytes is not None:
            self.memory_bytes = max(after.memory_bytes, self.memory_bytes or 0)


@contextmanager
def started_arms(names: Sequence[str], setup: ArmSetup) -> Iterator[tuple[list[RunningArm], list[LeftOut]]]:
    """The arms that can run, in the order of the table, and those that can't. All are ended on leaving.

    Each has a folder of its own within `setup.scratch`.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    spec = load_manifest(setup.folder).codec
    processes: list[GroupProcess] = []
    arms: list[RunningArm] = []
    skipped: list[LeftOut] = []
    with ExitStack() as stack:
        guard = stack.enter_context(Guard())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arms-", dir=setup.scratch)))
        for name in (name for name in ARMS if name in names):
            if ARMS[name].reads(spec):
                (scratch / name).mkdir()
                process = stack.enter_context(
                    GroupProcess(name, serve, ArmHost, guard=guard, patience_seconds=ANSWER_SECONDS)
                )
                process.send(ArmHost.start, ARMS[name].target, replace(setup, scratch=scratch / name))
                processes.append(process)
            else:
                skipped.append(LeftOut(name, f"does not read codec {spec.name} ({spec.dtype})"))
        for process in processes:
            introduction: Introduction = process.receive("start")
            if introduction.objection:
                skipped.append(LeftOut(process.name, introduction.objection))
            else:
                arms.append(RunningArm(process, introduction))
        yield arms, skipped


def run_job(arms: Sequence[RunningArm], job: Job, *, pace: Pace, progress: Progress) -> list[ArmResult]:
    """Prove, warm up, and measure in turns those arms that can do the job; each round begins with another one.

    Raises:
        VidpipeError: an arm doesn't give the stored clips, or failed.
    """
    arms = [arm for arm in arms if job in arm.introduction.jobs]
    first_batch: dict[str, float] = {}
    for arm in arms:
        arm.process.send(ArmHost.prove, job, pace.proof_batches)
    proofs: dict[str, Proof] = {arm.name: arm.process.receive(job) for arm in arms}
    progress(f"{job}: all arms give the stored clips")
    for arm in arms:
        arm.reset()
        first_batch[arm.name] = arm.process.call(job, ArmHost.open, job)
        arm.process.call("measuring", ArmHost.measure, pace.seconds / 2)
        arm.process.freeze()
    for number in range(pace.rounds):
        for arm in in_turn(arms, number):
            arm.turn(pace.seconds)
        progress(f"{job}: round {number + 1} of {pace.rounds}")
    for arm in arms:
        arm.process.thaw()
        arm.process.call("closing", ArmHost.close)
    return [
        ArmResult(
            arm=arm.name,
            job=job,
            title=arm.introduction.title,
            about=arm.introduction.about,
            rounds=tuple(window.clips / window.seconds for window in arm.windows),
            first_batch_seconds=None if arm.name == CEILING else first_batch[arm.name],
            cpu_seconds_per_clip=arm.cpu_seconds / sum(window.taken for window in arm.windows),
            memory_bytes=arm.memory_bytes,
            proof=proofs[arm.name],
        )
        for arm in arms
    ]
