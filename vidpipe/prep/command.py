"""What `vidpipe prep` does with its arguments: recipe, source, output, progress, and the summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidpipe.datasets.motion import Motion, generate
from vidpipe.errors import UsageError
from vidpipe.prep.dry_run import Forecast, forecast
from vidpipe.prep.progress import ConsoleProgress
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.prep.result import PrepResult
from vidpipe.prep.run import Engine, PrepJob, check_splits, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run goes about its work; none of it changes a byte of the result. See `PrepJob`."""

    splits: Sequence[str] = ()
    workers: int | None = None
    limit: int | None = None
    engine: Engine = "local"
    task: str | None = None
    retry_rejects: bool = False


@dataclass(frozen=True, slots=True)
class PrepSummary:
    """A run's outcome, for people and for programs."""

    result: PrepResult

    def to_json(self) -> dict[str, Any]:
        """Plain values: per split videos, written, rejected (by reason), clips, shards, bytes, notes."""
        splits = {
            name: {
                **split.counts.model_dump(mode="json"),
                "shards": split.shards,
                "bytes": split.bytes,
                "notes": list(split.notes),
            }
            for name, split in self.result.splits.items()
        }
        return {
            "out": str(self.result.out),
            "made_shards": self.result.made_shards,
            "reused_shards": self.result.reused_shards,
            "unfinished_shards": self.result.unfinished_shards,
            "over_budget": self.result.over_budget,
            "splits": splits,
        }

    def as_text(self) -> str:
        """One line a split, and one for each note on it."""
        lines = []
        for name, split in self.to_json()["splits"].items():
            reasons = ", ".join(f"{count} {reason}" for reason, count in split["rejects_by_reason"].items())
            lines.append(
                f"{name}: {split['videos']} videos = {split['written']} written + {split['rejected']} rejected"
                f"{f' ({reasons})' if reasons else ''}; {split['clips']} clips in {split['shards']} shards, "
                f"{split['bytes'] / 1e6:.1f} MB"
            )
            lines += [f"  note: {note}" for note in split["notes"]]
        left = self.result.unfinished_shards
        if left:
            lines.append(f"{left} shards are left to other tasks; the last one to finish writes the manifests")
        where = f"shards are in {self.result.out}"
        if self.result.over_budget:
            where += ", but without a manifest while so many videos are rejected"
        return "\n".join([*lines, where])


def run_prep(
    name: str,
    overrides: Sequence[str],
    *,
    source: Path | None,
    out: Path | None,
    run: RunOptions,
) -> PrepSummary:
    """Prepare what the recipe says.

    Args:
        name: a recipe's name or file.
        source: folder of the videos; a generated data set makes them there, by default in `out`/videos.
        out: `shards/NAME` by default.

    Raises:
        VidpipeError: see `prepare`.
    """
    with ConsoleProgress() as progress:
        return PrepSummary(
            prepare(_make_job(name, overrides, source=source, out=out, run=run, progress=progress), progress=progress)
        )


def run_dry(name: str, overrides: Sequence[str], *, source: Path | None, out: Path | None, run: RunOptions) -> Forecast:
    """What `run_prep` would do, without decoding or writing anything (but the videos of a generated data set).

    Raises:
        VidpipeError: the recipe, the source, its annotations or the output can't be used.
    """
    with ConsoleProgress() as progress:
        job = _make_job(name, overrides, source=source, out=out, run=run, progress=progress)
    listing = job.options.scan(job.source)
    check_splits(listing, job)
    return forecast(job, listing)


def _make_job(
    name: str,
    overrides: Sequence[str],
    *,
    source: Path | None,
    out: Path | None,
    run: RunOptions,
    progress: ConsoleProgress,
) -> PrepJob:
    recipe, options = load_prep_recipe(name, overrides)
    title = Path(name).stem
    out = out or Path("shards") / title
    if isinstance(options, Motion):
        source = source or out / "videos"
        generate(source, options, progress=progress.generating)
    elif source is None:
        raise UsageError(f"prep {name}: --source DIR is required: the folder that holds the videos")
    return PrepJob(
        name=title,
        recipe=recipe,
        options=options,
        source=source,
        out=out,
        splits=run.splits,
        workers=run.workers,
        limit=run.limit,
        engine=run.engine,
        task=parse_task(run.task) if run.task else (1, 1),
        retry_rejects=run.retry_rejects,
    )


def parse_task(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64).

    Raises:
        UsageError: it is not i/n with 1 <= i <= n.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--task {text}: expected i/n with 1 <= i <= n, for instance 3/64")
    return int(number), int(count)
