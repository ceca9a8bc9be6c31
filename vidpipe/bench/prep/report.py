"""The prep benchmark's results: for people, for programs, and as a picture."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from vidpipe.bench.prep.arms import BARE, DECORD, OURS
from vidpipe.bench.prep.process import Memory
from vidpipe.bench.reports import LeftOut, Report, draw_rounds
from vidpipe.bench.tables import number, spread, table

GOAL = 0.9
_HEADINGS = (
    *("videos/s", "min-max", "to bare", "to decord", "source frames/s", "clip frames/s"),
    *("CPU/video", "first video", "memory", "a worker"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepArmResult:
    """One arm.

    Attributes:
        rounds: videos per second of each round, from the start of its process to its end.
        source_frames: that it has to decode in a round; None where it leaves some out.
        clip_frames: that come out in a round.
        cpu_seconds_per_video: of all its processes, over all rounds.
        first_seconds: from the start of its process to the end of its first video; median of the rounds.
        memory: the most that its processes held while it was proven, without mapped files; None if unknown.
    """

    arm: str
    title: str
    about: str
    rounds: tuple[float, ...]
    source_frames: int | None
    clip_frames: int
    cpu_seconds_per_video: float
    first_seconds: float
    memory: Memory | None

    @property
    def videos_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepReport(Report):
    """What a run of the prep benchmark found.

    Attributes:
        videos: that each arm goes through in a round; of them `distinct_videos` are different files.
        source_videos: in the source folder.
        frames, stride: of the clip that is cut from each video.
        shards: that prep writes in a round.
        worst_psnr_db: of prep's clips beside decord's; infinite when all are equal.
        skipped: arms that can't run.
        left_out: videos that some arm can't deal with.
    """

    videos: int
    distinct_videos: int
    source_videos: int
    frames: int
    stride: int
    workers: int
    shards: int
    worst_psnr_db: float
    results: tuple[PrepArmResult, ...]
    skipped: tuple[LeftOut, ...]
    left_out: tuple[LeftOut, ...]

    def ratios(self, result: PrepArmResult, arm: str) -> tuple[float, ...]:
        """How many times as fast as another arm, round by round; empty if that one was left out."""
        others = [other.rounds for other in self.results if other.arm == arm]
        return tuple(own / other for own, other in zip(result.rounds, *others, strict=True)) if others else ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; each result with its medians and ratios. A PSNR of None: the clips are equal."""
        results = [
            {
                **asdict(result),
                "videos_per_second": result.videos_per_second,
                "source_frames_per_second": self._per_second(result, result.source_frames),
                "clip_frames_per_second": self._per_second(result, result.clip_frames),
                "times_bare": _middle(self.ratios(result, BARE)),
                "times_decord": _middle(self.ratios(result, DECORD)),
            }
            for result in self.results
        ]
        psnr = None if math.isinf(self.worst_psnr_db) else self.worst_psnr_db
        return {**asdict(self), "results": results, "worst_psnr_db": psnr, "goal": GOAL}

    def as_text(self) -> str:
        """A table, the goal, and what is to be known about them."""
        files = f"{self.videos} videos, of them {self.distinct_videos} different files"
        lines = [f"{files}: one clip of {self.frames} frames, stride {self.stride}, short side 240, from each", ""]
        lines += table([("", *_HEADINGS), *(self._row(result) for result in self.results)])
        lines += ["", *self._goals()]
        equal = "equal" if math.isinf(self.worst_psnr_db) else f"PSNR {self.worst_psnr_db:.1f} dB or more"
        lines.append(f"first it was proven that all arms decode the same frames; prep's clips beside decord's: {equal}")
        lines += [f"arm left out: {arm.name}: {arm.reason}" for arm in self.skipped]
        lines += [f"video left out: {video.name}: {video.reason}" for video in self.left_out]
        if self.distinct_videos + len(self.left_out) < self.source_videos:
            lines.append(f"note: chosen evenly from {self.source_videos} videos")
        rounds = max(len(result.rounds) for result in self.results)
        taking = f"{self.workers} processes in each arm, {self.shards} shards a round, files in the page cache"
        lines.append(f"median of {rounds} interleaved rounds, starting of processes included; {taking}")
        return "\n".join([*lines, *self.closing_lines()])

    def pictures(self) -> dict[str, Any]:
        """Speeds of the arms."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.2 + 0.45 * len(self.results)), layout="constrained")
        axes = figure.subplots()
        draw_rounds(axes, {result.title: result.rounds for result in self.results}, ours="vidpipe")
        axes.set_xlim(right=max(max(result.rounds) for result in self.results) * 1.15)
        axes.set_xlabel("videos per second (median, min to max)")
        geometry = f"one clip of {self.frames} frames, stride {self.stride}, from each of {self.videos} videos"
        figure.suptitle(f"{geometry}, {self.workers} processes\n{self.machine}", fontsize="small")
        return {".png": figure}

    def _goals(self) -> list[str]:
        """For both kinds of bare decoding: ffmpeg's, which gives no RGB, and decord's, which gives the very frames."""
        ours = next(result for result in self.results if result.arm == OURS)
        lines = []
        for bare in self.results:
            if bare.arm in (BARE, DECORD):
                ratios = self.ratios(ours, bare.arm)
                reached = "reached" if median(ratios) >= GOAL else "not reached"
                spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
                lines.append(
                    f"goal: {ours.title}, at {GOAL:g} of `{bare.title}` or more: {median(ratios):.2f} ({spread}), {reached}"
                )
        return lines

    def _per_second(self, result: PrepArmResult, frames: int | None) -> float | None:
        return None if frames is None else result.videos_per_second * frames / self.videos

    def _row(self, result: PrepArmResult) -> tuple[str, ...]:
        bare, decord = (_middle(self.ratios(result, arm)) for arm in (BARE, DECORD))
        source = self._per_second(result, result.source_frames)
        clip = self._per_second(result, result.clip_frames)
        memory = result.memory
        return (
            result.title,
            number(result.videos_per_second),
            spread(result.rounds),
            "" if bare is None else f"{bare:.2f}",
            "" if decord is None else f"{decord:.2f}",
            "" if source is None else number(source),
            "" if clip is None else number(clip),
            f"{result.cpu_seconds_per_video * 1e3:.0f} ms",
            f"{result.first_seconds:.2f} s",
            "" if memory is None else f"{memory.bytes / 1e6:.0f} MB",
            "" if memory is None else f"{memory.bytes_per_worker / 1e6:.0f} MB",
        )


def _middle(values: tuple[float, ...]) -> float | None:
    return median(values) if values else None
