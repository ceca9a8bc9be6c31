"""`vidpipe prep --dry-run`: what was found and what it will take. Nothing is decoded; the headers of a few videos are read."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vidpipe.cores import usable_cores
from vidpipe.datasets.base import Listing, in_words
from vidpipe.prep.estimate import VideoCost, estimate, schedule_seconds
from vidpipe.prep.finish import resolved_recipe
from vidpipe.prep.header_sample import HeaderSample, sample_headers
from vidpipe.prep.plan import SplitPlan, make_plan, slice_of
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.run import PrepJob
from vidpipe.prep.split_work import SplitWork

_CLASSES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class SplitForecast:
    """What a split will be.

    Attributes:
        videos: that are there.
        missing: that are annotated, but not there.
        unlabelled: videos without a label.
        classes: videos by class.
        clips: if no video is rejected.
        shards: all of them; `finished_shards` are there already.
        bytes: that all of its shards will take, about.
        payload_bytes: of it, what the frames take; exact for `tensor` when all headers were read.
    """

    videos: int
    missing: int
    unlabelled: int
    classes: dict[str, int]
    clips: int
    shards: int
    finished_shards: int
    bytes: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Basis:
    """What the estimates rest on.

    Attributes:
        headers: of how many videos were read.
        unreadable: further ones that prep will reject for what their header is; they take nothing.
        undecided: further ones whose header took too long, or ended its reader.
        sizes: smallest and greatest (width, height) by their area, None without any header.
        median_seconds: duration of the videos; None when no header says it.
    """

    headers: int
    unreadable: int
    undecided: int
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    median_seconds: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will do.

    Attributes:
        counts: see `Listing`.
        source_bytes: of all videos.
        bytes: that all shards will take; `bytes_left` those that are still to be made.
        seconds: that the run will take, about, with `workers` cores like the one where the rates were measured.
        free_bytes: where the shards will go.
    """

    out: str
    splits: dict[str, SplitForecast]
    counts: dict[str, int]
    notes: tuple[str, ...]
    basis: Basis
    source_bytes: int
    bytes: int
    bytes_left: int
    free_bytes: int
    seconds: float
    workers: int

    @property
    def fits(self) -> bool:
        """Whether the shards that are still to be made fit on the disk."""
        return self.bytes_left <= self.free_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "fits": self.fits}

    def as_text(self) -> str:
        """For people."""
        lines = [line for name, split in self.splits.items() for line in _split_lines(name, split)]
        lines += [f"  {finding}" for finding in in_words(self.counts)]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(_basis_line(self.basis, sum(split.videos for split in self.splits.values())))
        lines.append(f"source {_size(self.source_bytes)}; about {_time(self.seconds)} on {self.workers} cores")
        verdict = "fits" if self.fits else "does NOT fit: choose another --out, --codec jpeg, fewer --clips or --frames"
        done = sum(split.finished_shards for split in self.splits.values())
        still = f"the shards still to be made ({done} are finished) take" if done else "shards take"
        lines.append(f"{still} about {_size(self.bytes_left)}; {_size(self.free_bytes)} free at {self.out}: {verdict}")
        return "\n".join(lines)


def _split_lines(name: str, split: SplitForecast) -> list[str]:
    common = sorted(split.classes.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{label} {count}" for label, count in common[:_CLASSES_SHOWN])
    rest = len(common) - _CLASSES_SHOWN
    return [
        f"{name}: {split.videos} videos of {len(split.classes)} classes, {split.missing} missing"
        f"{f', {split.unlabelled} without a label' if split.unlabelled else ''}; "
        f"{split.clips} clips, {split.shards} shards, about {_size(split.bytes)}",
        f"  {shown}{f', and {rest} more' if rest > 0 else ''}",
    ]


def _basis_line(basis: Basis, videos: int) -> str:
    if basis.sizes is None:
        what = "estimated for videos of 320x240 and 10 s, because no header could be read"
    else:
        (small_width, small_height), (width, height) = basis.sizes
        what = f"estimated from the headers of {basis.headers} of {videos} videos: {small_width}x{small_height}"
        what += f" to {width}x{height}" if basis.sizes[0] != basis.sizes[1] else ""
        what += f", half of them {basis.median_seconds:.1f} s or longer" if basis.median_seconds is not None else ""
    if basis.unreadable:
        what += f"; {basis.unreadable} more can't be read, and will be rejected"
    return f"{what}; {basis.undecided} more took too long, or ended what read them" if basis.undecided else what


def forecast(job: PrepJob, listing: Listing) -> Forecast:
    """Count what a listing holds and estimate what preparing it takes.

    Raises:
        ShardError: the output holds a finished data set that was made from another plan.
    """
    recipe = job.recipe
    plans = make_plan(recipe, listing, splits=job.splits or listing.splits, limit=job.limit)
    resolved = resolved_recipe(recipe, job.options)
    paths = {plan.split: [video.path for shard in plan.shards for video in shard.videos] for plan in plans}
    sample = sample_headers(listing.root, paths)
    splits: dict[str, SplitForecast] = {}
    left: dict[tuple[str, str], VideoCost] = {}
    for plan in plans:
        costs = _Costs(sample, recipe, plan, paths[plan.split])
        todo = [task.shard for task in SplitWork(plan, job.out / plan.split, resolved).refresh()]
        left |= {(plan.split, shard.name): costs.together([video.path for video in shard.videos]) for shard in todo}
        splits[plan.split] = _split_forecast(plan, listing, costs.together(paths[plan.split]), len(todo))
    ours = [(shard.split, shard.name) for shard in slice_of(plans, job.task)]
    cores = job.workers or usable_cores()
    return Forecast(
        out=str(job.out),
        splits=splits,
        counts=dict(listing.counts),
        notes=listing.notes,
        basis=_basis(sample),
        source_bytes=sum(_file_bytes(listing.root / path) for some in paths.values() for path in some),
        bytes=sum(split.bytes for split in splits.values()),
        bytes_left=round(sum(cost.bytes for cost in left.values())),
        free_bytes=shutil.disk_usage(_existing(job.out)).free,
        seconds=schedule_seconds([left[key].seconds for key in ours if key in left], cores),
        workers=cores,
    )


def _split_forecast(plan: SplitPlan, listing: Listing, cost: VideoCost, num_left: int) -> SplitForecast:
    labels = Counter(video.label_name for shard in plan.shards for video in shard.videos)
    videos = sum(labels.values())
    unlabelled = labels.pop("", 0)
    return SplitForecast(
        videos=videos,
        missing=sum(video.split == plan.split for video in listing.missing),
        unlabelled=unlabelled,
        classes=dict(sorted(labels.items())),
        clips=videos * plan.clip.clips,
        shards=len(plan.shards),
        finished_shards=len(plan.shards) - num_left,
        bytes=round(cost.bytes),
        payload_bytes=round(cost.payload_bytes),
    )


class _Costs:
    """What the videos of a split take: those whose header was read what that says, others what these take on average."""

    def __init__(self, sample: HeaderSample, recipe: PrepRecipe, plan: SplitPlan, paths: list[str]) -> None:
        self._known: Mapping[str, VideoCost] = {
            path: estimate(sample.headers[path], recipe, plan.clip) if path in sample.headers else VideoCost()
            for path in paths
            if path in sample.headers or path in sample.unreadable
        }
        known = list(self._known.values())
        self._usual = (
            estimate(None, recipe, plan.clip)
            if not known
            else VideoCost(
                payload_bytes=fmean(cost.payload_bytes for cost in known),
                bytes=fmean(cost.bytes for cost in known),
                seconds=fmean(cost.seconds for cost in known),
            )
        )

    def together(self, paths: list[str]) -> VideoCost:
        """Of some videos of the split."""
        costs = [self._known.get(path, self._usual) for path in paths]
        return VideoCost(
            payload_bytes=sum(cost.payload_bytes for cost in costs),
            bytes=sum(cost.bytes for cost in costs),
            seconds=sum(cost.seconds for cost in costs),
        )


def _basis(sample: HeaderSample) -> Basis:
    headers = sorted(sample.headers.values(), key=lambda header: header.width * header.height)
    seconds = sorted(header.duration_seconds for header in headers if header.duration_seconds is not None)
    return Basis(
        headers=len(headers),
        unreadable=len(sample.unreadable),
        undecided=len(sample.undecided),
        sizes=((headers[0].width, headers[0].height), (headers[-1].width, headers[-1].height)) if headers else None,
        median_seconds=seconds[len(seconds) // 2] if seconds else None,
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
