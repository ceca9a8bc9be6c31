"""`prepare`: from a source folder to finished split folders, going on from whatever earlier or other runs have finished.

Any number of runs may work on one output folder, on one machine or on many: each shard is made under a lock, and whoever
finds all shards of a data set finished writes its manifests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

from vidpipe.cores import usable_cores
from vidpipe.datasets.base import DatasetFormat, Listing, known_split
from vidpipe.errors import DatasetError, RejectBudgetError, UsageError, printable
from vidpipe.prep.finish import finish_split, resolved_recipe, write_rejects
from vidpipe.prep.local import run_local
from vidpipe.prep.plan import ShardPlan, make_plan, output_hash, slice_of
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.result import OverBudgetError, PrepResult, SplitResult
from vidpipe.prep.shard_job import ShardTask, VideoDone
from vidpipe.prep.split_work import SplitWork
from vidpipe.recipes import nearest
from vidpipe.shards.layout import MANIFEST, write_errors
from vidpipe.shards.locks import locked, present
from vidpipe.shards.manifest import VERSION_SEPARATOR, Manifest
from vidpipe.shards.parts import drop_leftovers

FINISH_LOCK = "finish"

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
        retry_rejects: try again what was rejected before, and take in videos that have another size now or have arrived.
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


def prepare(job: PrepJob, *, progress: Progress | None = None) -> PrepResult:
    """Prepare a data set.

    Raises:
        DatasetError: the source or its annotations can't be used.
        RejectBudgetError: more than `recipe.max_rejects` of all annotation rows can't be read; nothing was written.
        OverBudgetError: more than `recipe.max_rejects` of all videos were rejected; finished shards are kept.
        ShardError: `out` holds a finished data set that was made from another plan, or a run with another plan is at it.
    """
    listing = job.options.scan(job.source)
    if progress:
        progress.found(listing)
    check_splits(listing, job)
    plans = make_plan(job.recipe, listing, splits=listing.splits, limit=job.limit)
    recipe = resolved_recipe(job.recipe, job.options)
    whole = output_hash(plans, name=job.name, recipe=recipe)
    all_splits = [SplitWork(plan, job.out / plan.split, recipe) for plan in plans]
    if not all((split.out / MANIFEST).is_file() for split in all_splits):
        _check_rows(listing, job.recipe.max_rejects)
    wanted = job.splits or listing.splits
    splits = [split for name in wanted for split in all_splits if split.plan.split == name]
    work = _Work(job, splits, root=listing.root, plan=whole, progress=progress)
    finished = None if os.access(job.out, os.W_OK) else work.finished_before()
    if finished is not None:  # and perhaps on a read-only file system, where no run can say that it is at work
        return finished
    with present(job.out, whole, clean=lambda: _drop_leftovers(all_splits)):
        return work.run()


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
    for split in () if isinstance(job.recipe.clips, int) else job.recipe.clips:
        if split not in listing.splits and known_split(split) != split:  # a recipe may count on train, val and test
            raise UsageError(f"clips.{split}: no such split{nearest(split, listing.splits)}")


def _check_rows(listing: Listing, allowed: float) -> None:
    bad = listing.counts.get("bad_rows", 0)
    rows = bad + len(listing.videos) + len(listing.missing)
    if not is_within_budget(bad, rows, allowed):
        raise RejectBudgetError(
            f"{listing.root}: {bad} of {rows} annotation rows can't be read ({bad / rows:.1%}), but --max-rejects allows "
            f"{allowed:.1%}; --dry-run names the first; mend them, or run again with a larger --max-rejects"
        )


def _drop_leftovers(splits: Sequence[SplitWork]) -> None:
    for split in splits:
        drop_leftovers(split.out)


@dataclass(slots=True)
class _Work:
    """A run while it is present at the output folder; `plan` is the hash of what all runs there work by."""

    job: PrepJob
    splits: Sequence[SplitWork]
    _: KW_ONLY
    root: Path
    plan: str
    progress: Progress | None

    def finished_before(self) -> PrepResult | None:
        """What earlier runs have left if nothing is to be done any more."""
        if self.job.retry_rejects or self._todo() or any(split.manifest is None for split in self.splits):
            return None
        if any(split.is_said_otherwise(self.job.recipe) for split in self.splits):
            return None
        if self.progress:
            videos = _num_videos(shard for split in self.splits for shard in split.plan.shards)
            self.progress.start(videos=videos, done=videos)
        splits = self._split_results()
        reused = sum(split.shards for split in splits.values())
        return PrepResult(self.job.out, splits, reused, made_shards=0, unfinished_shards=0)

    def run(self) -> PrepResult:
        for split in self.splits:
            split.out.mkdir(parents=True, exist_ok=True)
        if self.job.retry_rejects:
            with locked(self.job.out, FINISH_LOCK, wait=True):
                for split in self.splits:
                    split.check_retry(self.job.recipe)
                for split in self.splits:
                    split.forget_rejects(self.job.recipe)
        todo = self._todo()
        mine = self._slice_of(todo)
        if self.progress:
            done = _num_videos(shard for split in self.splits for shard in split.plan.shards)
            done -= _num_videos(task.shard for task in todo)
            self.progress.start(videos=done + _num_videos(task.shard for task in mine), done=done)
        reused = sum(len(split.plan.shards) for split in self.splits) - len(todo)
        made = self._make(mine)
        while True:
            if self.job.task == (1, 1):
                made += self._wait_for_others()
            result = self._finish(PrepResult(self.job.out, {}, reused, made, unfinished_shards=0))
            if self.job.task != (1, 1) or not result.unfinished_shards:
                return result

    def _todo(self) -> list[ShardTask]:
        return [task for split in self.splits for task in split.refresh()]

    def _slice_of(self, todo: Sequence[ShardTask]) -> list[ShardTask]:
        """The tasks of this run's slice."""
        ours = {(shard.split, shard.name) for shard in slice_of([split.plan for split in self.splits], self.job.task)}
        return [item for item in todo if (item.shard.split, item.shard.name) in ours]

    def _make(self, tasks: Sequence[ShardTask]) -> int:
        job = self.job
        if not tasks:
            return 0
        if job.engine == "ray":
            from vidpipe.prep.ray_engine import run_ray

            return run_ray(
                tasks, recipe=job.recipe, root=self.root, plan=self.plan, workers=job.workers, on_video=self._on_video
            )
        workers = job.workers or usable_cores()
        return run_local(tasks, recipe=job.recipe, root=self.root, workers=workers, on_video=self._on_video)

    def _on_video(self, done: VideoDone) -> None:
        if self.progress:
            self.progress.video(done)

    def _wait_for_others(self) -> int:
        """Until all shards are there: wait for those that others are making, and make those that others gave up."""
        made = 0
        while left := self._todo():
            if self.progress:
                self.progress.waiting(len(left))
            with locked(left[0].out, left[0].shard.name, wait=True):
                pass
            made += self._make(self._todo())
        return made

    def _finish(self, result: PrepResult) -> PrepResult:
        """Write or restate the manifests if all shards are there; other runs may have seen to that, or have taken shards away."""
        with locked(self.job.out, FINISH_LOCK, wait=True):
            left = sum(len(split.look_again()) for split in self.splits)
            if left:
                return replace(result, unfinished_shards=left)
            self._check_budget(replace(result, splits=self._split_results()))
            for split in self.splits:
                with write_errors(split.out):
                    if split.manifest is None:
                        split.manifest = finish_split(
                            split.plan,
                            split.finished_parts(),
                            name=self.job.name,
                            recipe=self.job.recipe,
                            options=self.job.options,
                            out=split.out,
                        )
                    else:
                        split.restate(self.job.recipe)
        return replace(result, splits=self._split_results())

    def _split_results(self) -> dict[str, SplitResult]:
        return {split.plan.split: _split_result(split) for split in self.splits}

    def _check_budget(self, result: PrepResult) -> None:
        allowed = self.job.recipe.max_rejects
        videos = sum(split.counts.videos for split in result.splits.values())
        rejected = sum(split.counts.rejected for split in result.splits.values())
        unfinished = [split for split in self.splits if split.manifest is None]
        rejects = [reject for split in unfinished for part in split.finished_parts() for reject in part.rejects]
        if is_within_budget(rejected, videos, allowed) or not rejects:
            return
        for split in unfinished:
            write_rejects(split.out, split.finished_parts())
        first = rejects[0]
        raise OverBudgetError(
            f"{rejected} of {videos} videos rejected ({rejected / videos:.1%}), but --max-rejects allows {allowed:.1%}: "
            f"{printable(first.path)}: {first.reason}: {first.message.rstrip('.')}{' ...' if len(rejects) > 1 else ''}. "
            "All finished shards are "
            f"kept and rejects.jsonl in each split lists every reason; mend the videos, or run again with a larger "
            f"--max-rejects",
            replace(result, over_budget=True),
        )


def is_within_budget(rejected: int, videos: int, max_rejects: float) -> bool:
    """Whether no larger share is rejected. The budget is what its decimal digits say, so 29 of 100 are within 29 %."""
    return rejected <= Fraction(str(max_rejects)) * videos


def _num_videos(shards: Iterable[ShardPlan]) -> int:
    return sum(len(shard.videos) for shard in shards)


def _split_result(split: SplitWork) -> SplitResult:
    parts = split.manifest.shards if split.manifest else split.finished_parts()
    notes = [*split.notes, *(_version_notes(split.manifest) if split.manifest else ())]
    return SplitResult(split.counts(), len(parts), sum(part.bytes for part in parts), tuple(notes))


def _version_notes(manifest: Manifest) -> Iterator[str]:
    for name, version in manifest.versions.items():
        if VERSION_SEPARATOR in version:
            yield f"its shards were made with different versions of {name}: {version}; their bytes may differ from those of one"
