"""`vidpipe bench codecs`: what every codec costs in bytes, in fidelity and in time, on the same videos in one run."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.codecs.contest import CROP, Contestant, Workshop
from vidpipe.bench.codecs.filmstrip import measure_filmstrip
from vidpipe.bench.codecs.report import CodecReport
from vidpipe.bench.codecs.variants import QUICK_VARIANTS, VARIANTS, find_variants
from vidpipe.bench.guard import Guard
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.running import Progress, check_options, in_turn, to_stderr
from vidpipe.bench.sources import choose_videos
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError
from vidpipe.recipes import nearest
from vidpipe.video.decode import decoder_versions

MAX_FRAMES = 64  # so that a filmstrip of `LONG` times as many stays below JPEG's 65,535 lines
MAX_FILES = 64
FILMSTRIP_CLIPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecBenchmark:
    """What to measure, and for how long.

    Attributes:
        source: folder of the videos; labels play no role.
        frames, stride: of the clip that is stored of each video, 320 x 240 pixels.
        size: side in pixels of what the loader gives.
        workers: processes of prep, and threads that read; by default one a core.
        rounds: turns of each codec; 3, or 1 if quick.
        round_seconds: least length of a turn of reading; 1, or 0.2 if quick.
        limit: of that many files at most, spread evenly over all; `MAX_FILES`.
        min_videos: files are taken repeatedly until there are that many; 96, or 8 if quick.
        out: folder that the JSON and the plot go to, as `codecs.*`, or `codecs-quick.*`.
        quick: a first impression: few codecs, videos and rounds.
        variants: names of `variants.VARIANTS`; by default all, or those of `QUICK_VARIANTS`.

    Raises:
        UsageError: a value is out of its range.
    """

    source: Path
    frames: int = 16
    stride: int = 2
    size: int = 224
    workers: int | None = None
    rounds: int | None = None
    round_seconds: float | None = None
    limit: int | None = None
    min_videos: int | None = None
    out: Path = Path("benchmarks/codecs")
    quick: bool = False
    variants: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_options(
            self, "codecs", "frames", "stride", "size", "workers", "rounds", "round_seconds", "limit", "min_videos"
        )
        if self.frames > MAX_FRAMES:
            raise UsageError(f"bench codecs: frames: got {self.frames}, expected at most {MAX_FRAMES}")
        for variant in self.variants or ():
            if variant not in VARIANTS:
                raise UsageError(f"bench codecs: no variant {variant!r}{nearest(variant, VARIANTS)}")


def run_codec_benchmark(options: CodecBenchmark, *, progress: Progress = to_stderr) -> CodecReport:
    """Measure, and write the JSON and the plot.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        DatasetError: there are no videos.
        VidpipeError: a lossless codec changes a frame, prep fails, or a video, or all, can't be decoded.
    """
    quick = options.quick
    rounds, seconds = options.rounds or (1 if quick else 3), options.round_seconds or (0.2 if quick else 1.0)
    variants, refused = find_variants(options.variants or (QUICK_VARIANTS if quick else None))
    machine = describe_machine()
    chosen, total = choose_videos(options.source, limit=options.limit or MAX_FILES)
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary, Guard() as guard:
        workshop = Workshop(
            Path(temporary),
            options.source,
            frames=options.frames,
            stride=options.stride,
            workers=options.workers or usable_cores(),
            guard=guard,
        )
        progress(f"decoding {len(chosen)} videos")
        videos, left_out = workshop.choose(variants[0], chosen)
        copies = math.ceil((options.min_videos or (8 if quick else 96)) / len(videos))
        workshop.place(videos, copies=copies)
        contestants = []
        for variant in variants:
            contestant = Contestant(variant, workshop)
            contestants.append(contestant)
            progress(f"{contestant.variant.name}: stored and compared with the source")
        for number in range(rounds):
            for contestant in in_turn(contestants, number):
                contestant.turn(seconds, size=options.size)
            progress(f"round {number + 1} of {rounds}")
        lossless = StoredClips(contestants[0].long)
        clips = [lossless.frames(clip) for clip in lossless.clips[:FILMSTRIP_CLIPS]]
        report = CodecReport(
            quick=quick,
            machine=machine,
            versions={**package_versions(), **decoder_versions()},
            videos=len(videos) * copies,
            distinct_videos=len(videos),
            source_videos=total,
            frames=options.frames,
            stride=options.stride,
            pixels=CROP,
            size=options.size,
            workers=workshop.workers,
            round_seconds=seconds,
            results=tuple(contestant.result() for contestant in contestants),
            filmstrip=measure_filmstrip(clips, frames=options.frames, rounds=rounds),
            refused=tuple(refused),
            left_out=tuple(left_out),
        )
    return report.written(options.out, "codecs")
