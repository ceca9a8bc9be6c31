"""`vidpipe bench loader`: prove that all arms give the same clips, then time them in turns."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from vidpipe.bench.arm import JOBS, RANDOM_CROP, ArmSetup, Job
from vidpipe.bench.arm_client import ArmClient, Usage
from vidpipe.bench.arm_process import Introduction, Window
from vidpipe.bench.arms import ARMS, CEILING
from vidpipe.bench.clips import StoredClips
from vidpipe.bench.guard import Guard
from vidpipe.bench.loader_report import ArmResult, ClipGeometry, LoaderReport, Skipped
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.selection import Selection, select_clips
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError
from vidpipe.recipes import nearest

PRELOADED = ("torch", "torchvision.transforms.v2", "vidpipe.bench.arm_process")  # once for all arms, which are forks
QUICK_ARMS = ("vidpipe", "vidpipe-torch", "vidpipe-dali", "decord")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderBenchmark:
    """What to measure, and for how long.

    Attributes:
        shards: a data-set folder or a split's; the demo's by default.
        source: folder of the videos that they were made from; without it nothing can be decoded on the fly.
        split: of the shards.
        out: folder that the JSON and the plot go to, as `loader.*`, or `loader-quick.*`.
        quick: a first impression: few arms, clips and rounds.
        arms: their names (see `arms.ARMS`); by default all, or those of `QUICK_ARMS`.
        jobs: `read` gives uint8 clips, `train` cropped, mirrored, normalised float32.
        batch_size: clips a batch.
        size: side in pixels of what `train` gives.
        workers: processes or threads that each arm may use; by default one a core.
        rounds: turns of each arm; 5, or 3 if quick.
        round_seconds: least length of a turn; 1, or 0.4 if quick.
        max_megabytes: (10^6 bytes) of shards to use; 1000, or 200 if quick, but at least one shard.

    Raises:
        UsageError: a value is out of its range.
    """

    shards: Path | None = None
    source: Path | None = None
    split: str = "train"
    out: Path = Path("benchmarks/loader")
    quick: bool = False
    arms: tuple[str, ...] | None = None
    jobs: tuple[Job, ...] = JOBS
    batch_size: int = 8
    size: int = 224
    workers: int | None = None
    rounds: int | None = None
    round_seconds: float | None = None
    max_megabytes: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "size", "workers", "rounds", "round_seconds", "max_megabytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"bench loader: {name}: got {value}, expected more than 0")
        for arm in self.arms or ():
            if arm not in ARMS:
                raise UsageError(f"bench loader: no arm {arm!r}{nearest(arm, ARMS)}")
        if not set(self.jobs) <= set(JOBS) or not self.jobs:
            raise UsageError(f"bench loader: jobs: got {', '.join(self.jobs)}, expected some of {', '.join(JOBS)}")


def run_loader_benchmark(options: LoaderBenchmark, *, progress: Progress | None = None) -> LoaderReport:
    """Measure, and write the JSON and the plot.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        UsageError: there are no shards where they should be.
        ShardError: they are unfinished or damaged.
        VidpipeError: an arm doesn't give the stored clips, or failed. Nothing is reported then.
    """
    quick = options.quick
    progress = progress or (lambda line: print(f"bench: {line}", file=sys.stderr))
    rounds, seconds = options.rounds or (3 if quick else 5), options.round_seconds or (0.4 if quick else 1.0)
    max_bytes = int(1e6 * (options.max_megabytes or (200 if quick else 1000)))
    machine = describe_machine()
    with select_clips(options.shards, options.source, split=options.split, max_bytes=max_bytes) as selection:
        setup = ArmSetup(
            folder=selection.folder,
            source=selection.source,
            batch_size=options.batch_size,
            workers=options.workers or usable_cores(),
            size=options.size,
            crop=RANDOM_CROP,
        )
        names = options.arms or (QUICK_ARMS if quick else tuple(ARMS))
        progress(f"starting {', '.join(names)}")
        results: list[ArmResult] = []
        with _started(names, setup) as (arms, skipped):
            for job in options.jobs:
                able = [arm for arm in arms if job in arm.introduction.jobs]
                results += _run_job(able, job, rounds=rounds, seconds=seconds, quick=quick, progress=progress)
        report = LoaderReport(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            quick=quick,
            machine=machine,
            versions=package_versions(),
            geometry=_geometry(selection),
            batch_size=setup.batch_size,
            workers=setup.workers,
            size=setup.size,
            round_seconds=seconds,
            results=tuple(results),
            skipped=tuple(skipped),
            notes=selection.notes,
        )
    name = "loader-quick" if quick else "loader"
    files = (options.out / f"{name}.json", options.out / f"{name}.png")
    report = replace(report, files=files)
    report.write(*files)
    return report


@dataclass(slots=True)
class _RunningArm:
    """An arm that can run, and what was measured of the job at hand."""

    name: str
    client: ArmClient
    introduction: Introduction
    windows: list[Window] = field(default_factory=list)
    cpu_seconds: float = 0.0
    memory_bytes: int | None = None

    def reset(self) -> None:
        """Forget what was measured."""
        self.windows, self.cpu_seconds, self.memory_bytes = [], 0.0, None

    def turn(self, seconds: float) -> None:
        """Let it run, measure, and freeze it again."""
        before = self.client.usage()
        self.client.thaw()
        window = self.client.measure(seconds)
        self.client.freeze()
        after: Usage = self.client.usage()
        self.windows.append(window)
        self.cpu_seconds += after.cpu_seconds - before.cpu_seconds
        if after.memory_bytes is not None:
            self.memory_bytes = max(after.memory_bytes, self.memory_bytes or 0)


@contextmanager
def _started(names: Sequence[str], setup: ArmSetup) -> Iterator[tuple[list[_RunningArm], list[Skipped]]]:
    """The arms that can run, in the order of the table, and those that can't. All are ended on leaving."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    clients: list[ArmClient] = []
    with Guard() as guard:
        try:
            clients += [ArmClient(name, ARMS[name], setup, guard=guard) for name in ARMS if name in names]
            arms: list[_RunningArm] = []
            skipped: list[Skipped] = []
            for client in clients:
                introduction = client.introduction()
                if introduction.objection:
                    skipped.append(Skipped(client.name, introduction.objection))
                else:
                    arms.append(_RunningArm(client.name, client, introduction))
            yield arms, skipped
        finally:
            for client in clients:
                client.kill()


def _run_job(
    arms: Sequence[_RunningArm], job: Job, *, rounds: int, seconds: float, quick: bool, progress: Progress
) -> list[ArmResult]:
    """Prove, warm up, and measure in turns; each round begins with another arm."""
    first_batch: dict[str, float] = {}
    for arm in arms:
        arm.client.begin_proof(job, num_batches=1 if quick else 2)
    proofs = {arm.name: arm.client.end_proof(job) for arm in arms}
    progress(f"{job}: all arms give the stored clips")
    for arm in arms:
        arm.reset()
        first_batch[arm.name] = arm.client.open(job)
        arm.client.measure(seconds / 2)
        arm.client.freeze()
    for number in range(rounds):
        shift = number % max(1, len(arms))
        for arm in [*arms[shift:], *arms[:shift]]:
            arm.turn(seconds)
        progress(f"{job}: round {number + 1} of {rounds}")
    for arm in arms:
        arm.client.thaw()
        arm.client.close_batches()
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


def _geometry(selection: Selection) -> ClipGeometry:
    stored = StoredClips(selection.folder)
    sizes = Counter(f"{clip.width}x{clip.height}" for clip in stored.clips)
    return ClipGeometry(
        dataset=selection.manifest.dataset,
        split=selection.manifest.split,
        codec=selection.manifest.codec.name,
        clips=len(stored),
        shards=len(selection.manifest.shards),
        frames=selection.manifest.clip.frames,
        sizes=tuple(size for size, _ in sizes.most_common(3)),
        clip_bytes=sum(clip.num_bytes for clip in stored.clips) // len(stored),
    )
