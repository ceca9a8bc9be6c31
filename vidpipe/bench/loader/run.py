"""`vidpipe bench loader`: prove that all arms give the same clips, then time them in turns."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms import ARMS
from vidpipe.bench.loader.arms.base import JOBS, RANDOM_CROP, ArmSetup, Job
from vidpipe.bench.loader.endurance import ARM as ENDURANCE_ARM
from vidpipe.bench.loader.endurance import first_batch_of_large_index, memory_over_epochs
from vidpipe.bench.loader.report import LoaderReport
from vidpipe.bench.loader.session import Pace, run_job, started_arms
from vidpipe.bench.loader.sweep import run_sweep
from vidpipe.bench.loader.table import SWEEPS, ArmResult, ClipGeometry, LoaderTable, Sweep
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.prepared import prepare_again
from vidpipe.bench.running import Progress, check_options, to_stderr
from vidpipe.bench.selection import Selection, clips_manifest, find_shards, first_shards, select_clips
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.recipes import nearest
from vidpipe.shards.codecs import CODECS
from vidpipe.shards.manifest import Manifest, find_split

QUICK_ARMS = ("vidpipe", "vidpipe-torch", "vidpipe-dali", "decord")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderBenchmark:
    """What to measure, and for how long.

    Attributes:
        shards: data-set folders or splits', each gives a table; the demo's by default.
        source: folder of the videos that they were made from; without it nothing can be decoded on the fly.
        split: of the shards.
        codecs: with which the videos of the first shards are prepared again, in a temporary folder, for a table more; by
            default none, or for the demo's shards all others.
        out: folder that the JSON and the plots go to, as `loader.*`, or `loader-quick.*`.
        quick: a first impression: few arms, clips and rounds.
        arms: their names (see `arms.ARMS`); by default all, or those of `QUICK_ARMS`.
        jobs: `read` gives uint8 clips, `train` cropped, mirrored, normalised float32.
        sweeps: settings against which the fastest arms' speed is measured in the end.
        batch_size: clips a batch.
        size: side in pixels of what `train` gives.
        workers: processes or threads that each arm may use; by default one a core.
        rounds: turns of each arm; 5, or 3 if quick.
        round_seconds: least length of a turn; 1, or 0.4 if quick.
        max_megabytes: (10^6 bytes) of each folder's shards to use; 1000, or 200 if quick, but at least one shard.

    Raises:
        UsageError: a value is out of its range.
    """

    shards: tuple[Path, ...] = ()
    source: Path | None = None
    split: str = "train"
    codecs: tuple[str, ...] | None = None
    out: Path = Path("benchmarks/loader")
    quick: bool = False
    arms: tuple[str, ...] | None = None
    jobs: tuple[Job, ...] = JOBS
    sweeps: tuple[Sweep, ...] = ()
    batch_size: int = 8
    size: int = 224
    workers: int | None = None
    rounds: int | None = None
    round_seconds: float | None = None
    max_megabytes: float | None = None

    def __post_init__(self) -> None:
        check_options(self, "loader", "batch_size", "size", "workers", "rounds", "round_seconds", "max_megabytes")
        for what, given, known in (("arm", self.arms, ARMS), ("codec", self.codecs, CODECS)):
            for name in given or ():
                if name not in known:
                    raise UsageError(f"bench loader: no {what} {name!r}{nearest(name, known)}")
        for name, given, allowed in (("jobs", self.jobs, JOBS), ("sweeps", self.sweeps, SWEEPS)):
            if not set(given) <= set(allowed) or (name == "jobs" and not given):
                raise UsageError(f"bench loader: {name}: got {', '.join(given)}, expected some of {', '.join(allowed)}")

    @property
    def pace(self) -> Pace:
        """For how long arms are timed."""
        rounds, seconds = self.rounds or (3 if self.quick else 5), self.round_seconds or (0.4 if self.quick else 1.0)
        return Pace(rounds, seconds, proof_batches=1 if self.quick else 2)


def run_loader_benchmark(options: LoaderBenchmark, *, progress: Progress = to_stderr) -> LoaderReport:
    """Measure, and write the JSON and the plots.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        UsageError: there are no shards where they should be.
        ShardError: they are unfinished or damaged.
        VidpipeError: an arm doesn't give the stored clips, or failed, or there is none. Nothing is reported then.
    """
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary:
        scratch = Path(temporary)
        tables = []
        for folder, source in _folders(options, scratch, progress):
            with select_clips(folder, source, split=options.split, max_bytes=_max_bytes(options)) as selection:
                tables.append(_measure(options, selection, scratch, progress))
    if not any(table.results for table in tables):
        reasons = [f"{arm.name}: {arm.reason}" for table in tables for arm in table.skipped]
        raise VidpipeError(f"bench loader: no arm is left; {'; '.join(reasons) or 'none of them does such a job'}")
    report = LoaderReport(
        quick=options.quick,
        machine=machine,
        versions=package_versions(),
        batch_size=options.batch_size,
        workers=options.workers or usable_cores(),
        size=options.size,
        rounds=options.pace.rounds,
        round_seconds=options.pace.seconds,
        tables=tuple(tables),
    )
    return report.written(options.out, "loader")


def _folders(options: LoaderBenchmark, scratch: Path, progress: Progress) -> Iterator[tuple[Path, Path | None]]:
    """The folders of shards, each with that of its videos: those named, then those that are prepared here."""
    found = [find_shards(shards, options.source) for shards in options.shards or (None,)]
    first, source = found[0]
    manifest = clips_manifest(find_split(first, options.split))
    others = tuple(name for name in CODECS if name != manifest.codec.name)
    default = others if not options.shards and not options.quick else ()
    codecs = default if options.codecs is None else options.codecs
    if source is None and codecs:
        raise UsageError(f"codec {codecs[0]}: preparing it needs the videos; name their folder with --source")
    yield from found
    for codec in codecs:
        assert source is not None
        progress(f"preparing the videos with codec {codec}")
        folder = scratch / codec
        folder.mkdir()
        limit = _num_videos(manifest, options)
        yield prepare_again(manifest, source, codec=codec, folder=folder, limit=limit), source


def _measure(options: LoaderBenchmark, selection: Selection, scratch: Path, progress: Progress) -> LoaderTable:
    setup = ArmSetup(
        folder=selection.folder,
        source=selection.source,
        scratch=scratch,
        batch_size=options.batch_size,
        workers=options.workers or usable_cores(),
        size=options.size,
        crop=RANDOM_CROP,
    )
    codec = selection.manifest.codec
    names = options.arms or tuple(name for name in (QUICK_ARMS if options.quick else ARMS) if ARMS[name].reads(codec))
    progress(f"codec {codec.name}: starting {', '.join(names)}")
    results: list[ArmResult] = []
    with started_arms(names, setup) as (arms, skipped):
        for job in options.jobs:
            results += run_job(arms, job, pace=options.pace, progress=progress)
    table = LoaderTable(
        geometry=_geometry(selection), results=tuple(results), skipped=tuple(skipped), notes=selection.notes
    )
    for sweep in options.sweeps:
        pace = replace(options.pace, rounds=min(3, options.pace.rounds))
        found = run_sweep(sweep, results, setup, stored_frames=table.geometry.frames, pace=pace, progress=progress)
        table = replace(table, sweeps=(*table.sweeps, *found))
    if not options.quick and any(result.arm == ENDURANCE_ARM for result in results):
        progress("first batch of a large index, and memory over epochs")
        table = replace(table, large_index=first_batch_of_large_index(setup), epoch_memory=memory_over_epochs(setup))
    return table


def _num_videos(manifest: Manifest, options: LoaderBenchmark) -> int:
    """About so many videos are in the part of the first folder that is used."""
    share = sum(entry.samples for entry in first_shards(manifest, _max_bytes(options))) / manifest.num_samples
    return math.ceil(manifest.counts.videos * share)


def _max_bytes(options: LoaderBenchmark) -> int:
    return int(1e6 * (options.max_megabytes or (200 if options.quick else 1000)))


def _geometry(selection: Selection) -> ClipGeometry:
    stored = StoredClips(selection.folder)
    manifest = selection.manifest
    sizes = Counter(f"{clip.width}x{clip.height}" for clip in stored.clips)
    return ClipGeometry(
        dataset=manifest.dataset,
        split=manifest.split,
        codec=manifest.codec.name
        if manifest.codec.dtype == "uint8"
        else f"{manifest.codec.name} {manifest.codec.dtype}",
        clips=len(stored),
        shards=len(manifest.shards),
        frames=stored.num_frames,
        sizes=tuple(size for size, _ in sizes.most_common(3)),
        clip_bytes=sum(stored.num_bytes(clip) for clip in stored.clips) // len(stored),
        stored_bytes=sum(entry.bytes for entry in manifest.shards),
    )
