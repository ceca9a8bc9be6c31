"""`vidpipe prep --dry-run`: what was found and what it will take, without decoding anything."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidpipe.cores import usable_cores
from vidpipe.datasets.base import Listing
from vidpipe.prep.plan import make_plan, nominal_video_bytes
from vidpipe.prep.recipe import PrepRecipe

# Core seconds to decode 10^6 bytes of source: measured over seven real H.264 and MPEG-4 clips of 320x180 to 1920x1080,
# 32 frames x stride 2 from each: 0.15 to 1.0, half of them below 0.3.
_SECONDS_PER_SOURCE_MB = 0.35
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
        bytes: that its shards will take, about.
    """

    videos: int
    missing: int
    unlabelled: int
    classes: dict[str, int]
    clips: int
    shards: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will do.

    Attributes:
        source_bytes: of all videos.
        seconds: that it will take, about, with `workers` cores like the one where the rate was measured.
        free_bytes: where the shards will go.
    """

    out: str
    splits: dict[str, SplitForecast]
    counts: dict[str, int]
    notes: tuple[str, ...]
    source_bytes: int
    bytes: int
    free_bytes: int
    seconds: float
    workers: int

    @property
    def fits(self) -> bool:
        """Whether the shards fit on the disk."""
        return self.bytes <= self.free_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "fits": self.fits}

    def as_text(self) -> str:
        """For people."""
        lines = []
        for name, split in self.splits.items():
            lines.append(
                f"{name}: {split.videos} videos of {len(split.classes)} classes, {split.missing} missing"
                f"{f', {split.unlabelled} without a label' if split.unlabelled else ''}; "
                f"{split.clips} clips, {split.shards} shards, about {_size(split.bytes)}"
            )
            common = sorted(split.classes.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{label} {count}" for label, count in common[:_CLASSES_SHOWN])
            rest = len(common) - _CLASSES_SHOWN
            lines.append(f"  {shown}{f', and {rest} more' if rest > 0 else ''}")
        lines += [f"  {name.replace('_', ' ')}: {count}" for name, count in self.counts.items() if count]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"source {_size(self.source_bytes)}; about {_time(self.seconds)} on {self.workers} cores")
        verdict = "fits" if self.fits else "does NOT fit: choose another --out, --codec jpeg, fewer --clips or --frames"
        lines.append(f"shards take about {_size(self.bytes)}; {_size(self.free_bytes)} free at {self.out}: {verdict}")
        return "\n".join(lines)


def forecast(
    recipe: PrepRecipe, listing: Listing, *, out: Path, splits: tuple[str, ...], limit: int | None, workers: int | None
) -> Forecast:
    """Count what a listing holds and estimate what preparing it takes."""
    plans = make_plan(recipe, listing, splits=splits or listing.splits, limit=limit)
    result, source_bytes = {}, 0
    for plan in plans:
        videos = [video for shard in plan.shards for video in shard.videos]
        source_bytes += sum(_file_bytes(listing.root / video.path) for video in videos)
        labels = Counter(video.label_name for video in videos)
        unlabelled = labels.pop("", 0)
        result[plan.split] = SplitForecast(
            videos=len(videos),
            missing=sum(video.split == plan.split for video in listing.missing),
            unlabelled=unlabelled,
            classes=dict(sorted(labels.items())),
            clips=len(videos) * plan.clip.clips,
            shards=len(plan.shards),
            bytes=len(videos) * nominal_video_bytes(recipe, plan.clip),
        )
    cores = workers or usable_cores()
    return Forecast(
        out=str(out),
        splits=result,
        counts=dict(listing.counts),
        notes=listing.notes,
        source_bytes=source_bytes,
        bytes=sum(split.bytes for split in result.values()),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        seconds=source_bytes / 1e6 * _SECONDS_PER_SOURCE_MB / cores,
        workers=cores,
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
