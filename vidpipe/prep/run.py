"""`prepare`: from a source folder to finished split folders, going on from whatever earlier or other runs have finished.

Any number of runs may work on one output folder, on one machine or on many: each shard is made under a lock, and whoever
finds all shards of a data set finished writes its manifests.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from vidpipe.cores import usable_cores
from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.errors import DatasetError, RejectBudgetError, ShardError, UsageError
from vidpipe.prep.finish import finish_split, write_rejects
from vidpipe.prep.local import run_local
from vidpipe.prep.parts import PARTS_FOLDER, Reject, ShardPart, load_part, locked, part_path, printable, restore_parts
from vidpipe.prep.plan import SplitPlan, make_plan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.shard_job import ShardTask, VideoDone
from vidpipe.recipes import nearest
from vidpipe.shards.layout import MANIFEST
from vidpipe.shards.manifest import Manifest, load_manifest

Engine = Literal["local", "ray"]


class Progress(Protocol):
    """What a caller is told while videos are prepared."""

    def found(self, listing: Listing) -> None:
        """The source was searched."""

    def start(self, *, videos: int, done: int) -> None:
        """Work begins; `done` of the videos are in shards that an earlier run finished."""

    def video(self, done: VideoDone) -> None:
        """A video was written or rejected."""

    def waiting(self, shards: int) -> None:
        """So many shards are being made by other runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepJob:
    """What to prepare, and how.

    Attributes:
        name: the recipe's name, which the manifest keeps.
        source: folder of the videos.
        out: gets one folder a split.
        splits: only these; all by default.
        workers: decoding processes; by default one for each core that this process may use (local), or of the cluster (ray).
        limit: only that many videos of each split, for a trial.
        engine: `local`, or `ray` on the cluster of RAY_ADDRESS or else one of this machine.
        task: (i, n) makes only every n-th shard, from the i-th on (1-based), for batch systems.
        retry_rejects: try again what was rejected before.
    """

    name: str
    recipe: PrepRecipe
    options: DatasetFormat
    source: Path
    out: Path
    splits: Sequence[str] = ()
    workers: int | None = None
    limit: int | None = None
    engine: Engine = "local"
    task: tuple[int, int] = (1, 1)
    retry_rejects: bool = False


@dataclass(frozen=True, slots=True)
class PrepResult:
    """What a run leaves behind.

    Attributes:
        manifests: of the finished splits.
        reused_shards: finished before this run.
        made_shards: by this run.
        unfinished_shards: left to other tasks; the manifests are written when there are none.
    """

    out: Path
    manifests: tuple[Manifest, ...]
    reused_shards: int
    made_shards: int
    unfinished_shards: int


@dataclass(slots=True)
class _Split:
    """A split on its way; `manifest` is there when it is complete."""

    plan: SplitPlan
    out: Path
    missing: list[Reject]
    manifest: Manifest | None = None
    parts: dict[str, ShardPart] = field(default_factory=dict)

    def refresh(self) -> list[ShardTask]:
        """Look at the folder: what has been finished, and what is still to be made."""
        for shard in self.plan.shards:
            part = None if shard.name in self.parts else load_part(self.out, shard)
            if part:
                self.parts[shard.name] = part
        todo = [shard for shard in self.plan.shards if shard.name not in self.parts]
        if todo and self.manifest is None:
            self.manifest = self._complete()
        return [] if self.manifest else [ShardTask(self.plan, shard, self.out) for shard in todo]

    def rejects(self) -> list[Reject]:
        """All rejects, in the plan's order."""
        return [*self.missing, *(r for shard in self.plan.shards for r in self.parts[shard.name].rejects)]

    def _complete(self) -> Manifest | None:
        if not (self.out / MANIFEST).is_file():
            return None
        manifest = load_manifest(self.out)
        ours = [shard.fingerprint for shard in self.plan.shards]
        if [entry.plan for entry in manifest.shards] == ours and manifest.classes == self.plan.classes:
            return manifest
        raise ShardError(
            f"{self.out}: holds a finished data set that was made from other videos or other options; "
            "choose another --out, or delete that folder first"
        )


def prepare(job: PrepJob, *, progress: Progress | None = None) -> PrepResult:
    """Prepare a data set.

    Raises:
        DatasetError: the source or its annotations can't be used.
        RejectBudgetError: more than `recipe.max_rejects` of all videos were rejected; finished shards are kept.
        ShardError: `out` holds a finished data set that was made from another plan.
    """
    listing = job.options.scan(job.source)
    if progress:
        progress.found(listing)
    check_splits(listing, job)
    plans = make_plan(job.recipe, listing, splits=job.splits or listing.splits, limit=job.limit)
    splits = [_Split(plan, job.out / plan.split, _missing(listing, plan.split, job.limit)) for plan in plans]
    for split in splits:
        split.out.mkdir(parents=True, exist_ok=True)
    if job.retry_rejects:
        _forget_rejects(splits)
    todo = [task for split in splits for task in split.refresh()]
    shards = sum(len(split.plan.shards) for split in splits)
    reused = shards - len(todo)
    mine = _slice_of(splits, todo, job.task)
    if progress:
        videos = sum(split.plan.num_videos for split in splits)
        done = videos - sum(len(task.shard.videos) for task in todo)
        progress.start(videos=done + sum(len(task.shard.videos) for task in mine), done=done)
    _make(mine, job, root=listing.root, progress=progress)
    if job.task == (1, 1):
        _wait_for_others(splits, job, root=listing.root, progress=progress)
    left = sum(len(split.refresh()) for split in splits)
    manifests = () if left else _finish(splits, job)
    return PrepResult(job.out, manifests, reused, len(mine), left)


def check_splits(listing: Listing, job: PrepJob) -> None:
    """Refuse an empty listing, and splits that it doesn't have.

    Raises:
        DatasetError: there are no videos.
        UsageError: there is no such split.
    """
    if not listing.splits:
        raise DatasetError(f"{job.source}: no videos found")
    for split in job.splits:
        if split not in listing.splits:
            raise UsageError(f"--split {split}: no such split{nearest(split, listing.splits)}")


def _missing(listing: Listing, split: str, limit: int | None) -> list[Reject]:
    if limit is not None:
        return []
    message = "named by the annotations, but there is no such file"
    return [
        Reject(printable(video.path), video.label or "", "", "find", "missing", message)
        for video in listing.missing
        if video.split == split
    ]


def _slice_of(splits: Sequence[_Split], todo: Sequence[ShardTask], task: tuple[int, int]) -> list[ShardTask]:
    """The tasks of one slice; slices are cut from all shards, so that they are the same on every run."""
    number, count = task
    all_shards = [(split.plan.split, shard.name) for split in splits for shard in split.plan.shards]
    ours = set(all_shards[number - 1 :: count])
    return [item for item in todo if (item.split.split, item.shard.name) in ours]


def _make(tasks: Sequence[ShardTask], job: PrepJob, *, root: Path, progress: Progress | None) -> None:
    def on_video(done: VideoDone) -> None:
        if progress:
            progress.video(done)

    if not tasks:
        return
    if job.engine == "ray":
        from vidpipe.prep.ray_engine import run_ray

        run_ray(tasks, recipe=job.recipe, root=root, workers=job.workers, on_video=on_video)
    else:
        run_local(tasks, recipe=job.recipe, root=root, workers=job.workers or usable_cores(), on_video=on_video)


def _wait_for_others(splits: Sequence[_Split], job: PrepJob, *, root: Path, progress: Progress | None) -> None:
    """Until all shards are there: wait for those that others are making, and make those that others gave up."""
    while left := [task for split in splits for task in split.refresh()]:
        if progress:
            progress.waiting(len(left))
        with locked(left[0].out, left[0].shard.name, wait=True):
            pass
        _make([task for split in splits for task in split.refresh()], job, root=root, progress=progress)


def _finish(splits: Sequence[_Split], job: PrepJob) -> tuple[Manifest, ...]:
    if all(split.manifest for split in splits):
        return tuple(split.manifest for split in splits if split.manifest)
    with locked(job.out, "finish", wait=True):
        for split in splits:
            split.refresh()
        _check_budget(splits, job.recipe.max_rejects)
        for split in splits:
            if split.manifest is None:
                split.manifest = _finish_split(split, job)
    shutil.rmtree(job.out / PARTS_FOLDER, ignore_errors=True)
    return tuple(split.manifest for split in splits if split.manifest)


def _finish_split(split: _Split, job: PrepJob) -> Manifest:
    if (split.out / MANIFEST).is_file():
        return load_manifest(split.out)
    parts = [split.parts[shard.name] for shard in split.plan.shards]
    return finish_split(
        split.plan, parts, split.missing, name=job.name, recipe=job.recipe, options=job.options, out=split.out
    )


def _check_budget(splits: Sequence[_Split], max_rejects: float) -> None:
    open_splits = [split for split in splits if split.manifest is None]
    finished = [split.manifest.counts for split in splits if split.manifest]
    rejects = [reject for split in open_splits for reject in split.rejects()]
    videos = sum(s.plan.num_videos + len(s.missing) for s in open_splits) + sum(c.videos for c in finished)
    rejected = len(rejects) + sum(c.rejected for c in finished)
    if rejected <= max_rejects * videos or not rejects:
        return
    for split in open_splits:
        write_rejects(split.out, split.rejects())
    first = rejects[0]
    raise RejectBudgetError(
        f"{rejected} of {videos} videos rejected ({rejected / videos:.1%}), but --max-rejects allows {max_rejects:.1%}: "
        f"{first.path}: {first.reason}: {first.message}{' ...' if len(rejects) > 1 else ''}. All finished shards are kept "
        f"and rejects.jsonl in each split lists every reason; mend the videos, or run again with a larger --max-rejects"
    )


def _forget_rejects(splits: Sequence[_Split]) -> None:
    """Forget the shards in which a video was rejected, so that they are made again."""
    for split in splits:
        split.refresh()
        if (split.out / MANIFEST).is_file():
            manifest = split.manifest or load_manifest(split.out)
            if not manifest.counts.rejected:
                continue
            restore_parts(split.out, manifest)
            split.manifest = None
            split.refresh()
        for name, part in list(split.parts.items()):
            if part.rejects:
                part_path(split.out, name).unlink()
                del split.parts[name]
