"""`prepare`: from a source folder to finished split folders, going on from whatever an earlier run has finished."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.errors import DatasetError, RejectBudgetError, ShardError, UsageError
from vidpipe.prep.finish import finish_split, write_rejects
from vidpipe.prep.local import ShardTask, run_local
from vidpipe.prep.plan import SplitPlan, make_plan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.shard_job import PARTS_FOLDER, Reject, ShardPart, VideoDone, load_part, printable
from vidpipe.recipes import nearest
from vidpipe.shards.layout import MANIFEST
from vidpipe.shards.manifest import Manifest, load_manifest


class Progress(Protocol):
    """What a caller is told while videos are prepared."""

    def found(self, listing: Listing) -> None:
        """The source was searched."""

    def start(self, *, videos: int, done: int) -> None:
        """Work begins; `done` of the videos are in shards that an earlier run finished."""

    def video(self, done: VideoDone) -> None:
        """A video was written or rejected."""


@dataclass(frozen=True, slots=True)
class PrepResult:
    """What a run leaves behind: the finished splits and whether there was anything to do."""

    out: Path
    manifests: tuple[Manifest, ...]
    reused_shards: int
    made_shards: int


@dataclass(slots=True)
class _Split:
    plan: SplitPlan
    out: Path
    missing: list[Reject]
    parts: dict[str, ShardPart]


def prepare(
    *,
    name: str,
    recipe: PrepRecipe,
    options: DatasetFormat,
    source: Path,
    out: Path,
    splits: Sequence[str] = (),
    workers: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> PrepResult:
    """Prepare a data set.

    Args:
        name: the recipe's name, which the manifest keeps.
        source: folder of the videos.
        out: gets one folder a split.
        splits: only these; all by default.
        workers: decoding processes; by default one for each core that this process may use.
        limit: only that many videos of each split, for a trial.

    Raises:
        DatasetError: the source or its annotations can't be used.
        RejectBudgetError: more than `recipe.max_rejects` of all videos were rejected; finished shards are kept.
        ShardError: `out` holds a finished data set that was made from another plan, or another run is at work on it.
    """
    listing = options.scan(source)
    if progress:
        progress.found(listing)
    _check_splits(listing, splits, source)
    plans = make_plan(recipe, listing, splits=splits or listing.splits, limit=limit)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        todo, finished = [], []
        for plan in plans:
            split = _Split(plan, out / plan.split, _missing(listing, plan.split, limit), {})
            manifest = _finished(split)
            if manifest:
                finished.append(manifest)
            else:
                todo.append(split)
        reused, made = _make(todo, recipe=recipe, root=listing.root, workers=workers or _cores(), progress=progress)
        _check_budget(todo, finished, recipe.max_rejects)
        for split in todo:
            parts = [split.parts[shard.name] for shard in split.plan.shards]
            finished.append(
                finish_split(split.plan, parts, split.missing, name=name, recipe=recipe, options=options, out=split.out)
            )
    return PrepResult(out, tuple(finished), reused, made)


def _check_splits(listing: Listing, splits: Sequence[str], source: Path) -> None:
    if not listing.splits:
        raise DatasetError(f"{source}: no videos found")
    for split in splits:
        if split not in listing.splits:
            raise UsageError(f"--split {split}: no such split{nearest(split, listing.splits)}")


def _missing(listing: Listing, split: str, limit: int | None) -> list[Reject]:
    if limit is not None:
        return []
    return [
        Reject(
            printable(v.path),
            v.label or "",
            "",
            "find",
            "missing",
            "named by the annotations, but there is no such file",
        )
        for v in listing.missing
        if v.split == split
    ]


def _finished(split: _Split) -> Manifest | None:
    """The manifest of a split that is complete and was made from this plan."""
    if not (split.out / MANIFEST).is_file():
        return None
    manifest = load_manifest(split.out)
    ours = [shard.fingerprint for shard in split.plan.shards]
    if [entry.plan for entry in manifest.shards] == ours and manifest.classes == split.plan.classes:
        return manifest
    raise ShardError(
        f"{split.out}: holds a finished data set that was made from other videos or other options; "
        "choose another --out, or delete that folder first"
    )


def _make(
    splits: Sequence[_Split], *, recipe: PrepRecipe, root: Path, workers: int, progress: Progress | None
) -> tuple[int, int]:
    tasks = []
    for split in splits:
        split.out.mkdir(exist_ok=True)
        _drop_leftovers(split)
        for shard in split.plan.shards:
            part = load_part(split.out, shard)
            if part:
                split.parts[shard.name] = part
            else:
                tasks.append(ShardTask(split.plan, shard, split.out))
    reused = sum(len(split.parts) for split in splits)
    if progress:
        videos = sum(split.plan.num_videos for split in splits)
        progress.start(videos=videos, done=videos - sum(len(task.shard.videos) for task in tasks))
    on_video: Callable[[ShardTask, VideoDone], None] = lambda _, done: progress.video(done) if progress else None  # noqa: E731
    if tasks:
        run_local(tasks, recipe=recipe, root=root, workers=workers, on_video=on_video)
    for split in splits:
        for shard in split.plan.shards:
            if shard.name not in split.parts:
                made = load_part(split.out, shard)
                if made is None:
                    raise ShardError(f"{split.out / shard.name}: changed by another process while it was being made")
                split.parts[shard.name] = made
    return reused, len(tasks)


def _drop_leftovers(split: _Split) -> None:
    """Remove temporary files of a killed run, and shards beyond the plan."""
    names = {shard.name for shard in split.plan.shards}
    for path in [*split.out.glob("*.tmp"), *(split.out / PARTS_FOLDER).glob("*.tmp")]:
        path.unlink()
    for path in split.out.glob("[0-9]*.*"):
        if path.suffix in (".tar", ".idx") and path.with_suffix(".tar").name not in names:
            path.unlink()


def _check_budget(todo: Sequence[_Split], finished: Sequence[Manifest], max_rejects: float) -> None:
    videos = sum(s.plan.num_videos + len(s.missing) for s in todo) + sum(m.counts.videos for m in finished)
    rejects = [r for s in todo for r in [*s.missing, *(r for p in s.parts.values() for r in p.rejects)]]
    rejected = len(rejects) + sum(m.counts.rejected for m in finished)
    if rejected <= max_rejects * videos or not todo:
        return
    for split in todo:
        write_rejects(
            split.out, [*split.missing, *(r for shard in split.plan.shards for r in split.parts[shard.name].rejects)]
        )
    first = rejects[0]
    raise RejectBudgetError(
        f"{rejected} of {videos} videos rejected ({rejected / videos:.1%}), but --max-rejects allows {max_rejects:.1%}: "
        f"{first.path}: {first.reason}: {first.message}{' ...' if len(rejects) > 1 else ''}. All finished shards are kept "
        f"and rejects.jsonl in each split lists every reason; mend the videos, or run again with a larger --max-rejects"
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second run off the same output folder; the lock goes with the process, however it ends."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ShardError(f"{out}: another `vidpipe prep` is at work on this folder; wait for it to end") from error
        yield
    finally:
        os.close(descriptor)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
