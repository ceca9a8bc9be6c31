"""`vidpipe bench prep`: the speed of preparation beside that of bare decoding, on the same videos and as many processes."""

from __future__ import annotations

import math
import pkgutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.guard import Guard
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.prep.arms import BARE, DECORD, OURS, REFERENCES, own_arms
from vidpipe.bench.prep.arms.base import PrepArm
from vidpipe.bench.prep.arms.vidpipe_prep import RECIPE
from vidpipe.bench.prep.report import PrepReport
from vidpipe.bench.prep.session import ArmEntry, PrepSession
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.running import Progress, check_options, to_stderr
from vidpipe.bench.sources import choose_videos
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.recipes import nearest
from vidpipe.video.decode import decoder_versions

QUICK_ARMS = (OURS, BARE, DECORD)
MAX_FILES = 256
MIN_VIDEOS = 320  # so that the start of prep's processes, about a second, is a small part of its time


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepBenchmark:
    """What to measure, and for how long.

    Attributes:
        source: folder of the videos; labels play no role.
        frames, stride: of the clip that is cut from each video.
        workers: processes that each arm may use; by default one a core.
        rounds: turns of each arm; 3, or 1 if quick.
        limit: of that many files at most, spread evenly over all; `MAX_FILES`.
        min_videos: files are taken repeatedly until there are that many; 12 if quick, else `MIN_VIDEOS`.
        out: folder that the JSON and the plot go to, as `prep.*`, or `prep-quick.*`.
        quick: a first impression: few arms, videos and rounds.
        arms: their names; by default all, or those of `QUICK_ARMS`. Bare decoding and prep itself are always among them.

    Raises:
        UsageError: a value is out of its range.
    """

    source: Path
    frames: int = 32
    stride: int = 2
    workers: int | None = None
    rounds: int | None = None
    limit: int | None = None
    min_videos: int | None = None
    out: Path = Path("benchmarks/prep")
    quick: bool = False
    arms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_options(self, "prep", "frames", "stride", "workers", "rounds", "limit", "min_videos")
        names = (*own_arms(), *REFERENCES)
        for arm in self.arms or ():
            if arm not in names:
                raise UsageError(f"bench prep: no arm {arm!r}{nearest(arm, names)}")


def run_prep_benchmark(options: PrepBenchmark, *, progress: Progress = to_stderr) -> PrepReport:
    """Prove that all arms do the same work, time them in turns, and write the JSON and the plot.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        DatasetError: there are no videos.
        VidpipeError: an arm failed, did other work in a round than before, or no video is left that all can decode.
    """
    rounds = options.rounds or (1 if options.quick else 3)
    machine = describe_machine()
    chosen, total = choose_videos(options.source, limit=options.limit or MAX_FILES)
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary, Guard() as guard:
        arms, skipped = _usable_arms(options)
        session = PrepSession(
            Path(temporary), options.source, arms, workers=options.workers or usable_cores(), guard=guard
        )
        progress(f"proving that {', '.join(arms)} do the same work with each of {len(chosen)} videos")
        session.prove(chosen)
        worst = session.compare_with_decord()
        copies = math.ceil((options.min_videos or (12 if options.quick else MIN_VIDEOS)) / len(session.videos))
        if copies > 1:
            progress(f"{copies} clips of each of {len(session.videos)} videos")
            session.multiply(copies)
        for number in range(rounds):
            session.round(number)
            progress(f"round {number + 1} of {rounds}")
        report = PrepReport(
            quick=options.quick,
            machine=machine,
            versions={**package_versions(), **decoder_versions()},
            videos=len(session.works),
            distinct_videos=len(session.videos),
            source_videos=total,
            frames=options.frames,
            stride=options.stride,
            workers=session.workers,
            shards=session.num_shards,
            worst_psnr_db=worst,
            results=tuple(session.result(name) for name in arms),
            skipped=skipped,
            left_out=tuple(session.left_out),
        )
    return report.written(options.out, "prep")


def _usable_arms(options: PrepBenchmark) -> tuple[dict[str, ArmEntry], tuple[LeftOut, ...]]:
    """The arms in the table's order; a codec whose recipe is refused is left out."""
    wanted = options.arms or (QUICK_ARMS if options.quick else (*own_arms(), *REFERENCES))
    arms: dict[str, ArmEntry] = {}
    skipped: list[LeftOut] = []
    for name, (target, codec) in own_arms().items():
        overrides = (
            *(f"frames={options.frames}", f"stride={options.stride}", "clips=1", f"codec={codec}"),
            *("layout=class", "max_rejects=1"),
        )
        if name != OURS and name not in wanted:
            continue
        try:
            load_prep_recipe(RECIPE, overrides)
        except UsageError as error:
            skipped.append(LeftOut(name, str(error)))
            continue
        arms[name] = ArmEntry(target, f"vidpipe prep, {codec}", pkgutil.resolve_name(target), overrides)
    for name, target in REFERENCES.items():
        if name == BARE or name in wanted:
            kind: type[PrepArm] = pkgutil.resolve_name(target)
            arms[name] = ArmEntry(target, kind.title, kind)
    return arms, tuple(skipped)
