"""What a prep run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidpipe.errors import RejectBudgetError
from vidpipe.shards.manifest import Counts


@dataclass(frozen=True, slots=True)
class SplitResult:
    """A split all of whose shards are finished; `notes` are sentences about it for people."""

    counts: Counts
    shards: int
    bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrepResult:
    """What a run leaves behind.

    Attributes:
        splits: by name; none while shards are left to other tasks.
        reused_shards: finished when this run began.
        made_shards: by this run.
        unfinished_shards: left to other tasks; the manifests are written when there are none.
        over_budget: too many videos were rejected, so that the manifests were not written.
    """

    out: Path
    splits: dict[str, SplitResult]
    reused_shards: int
    made_shards: int
    unfinished_shards: int
    over_budget: bool = False


class OverBudgetError(RejectBudgetError):
    """More videos were rejected than the budget allows; `result` says which and how many."""

    def __init__(self, message: str, result: PrepResult) -> None:
        super().__init__(message)
        self.result = result
