"""How a training run ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidpipe.train.progress import duration
from vidpipe.train.scores import Evaluation, ReconstructionScore


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        out: the run folder.
        steps, total_steps: optimiser steps taken since the run began, and those of the whole run.
        loss: mean loss of the last log row of this call, None if it took no step, or left all of them out.
        evaluation: the last one, None without a split to evaluate.
        best_top1: of all evaluations.
        clips: trained on by this call.
        bad_samples: damaged ones, and shards that can't be opened, that this call left out, over all processes.
        skipped_steps: that this call left out, for a loss or gradients that are not finite.
        seconds: of training in this call, without evaluations.
        data_wait_share: share of those seconds spent waiting for data.
        stopped_by: name of the signal, or else what it was that ended the run early.
    """

    out: Path
    steps: int
    total_steps: int
    loss: float | None
    evaluation: Evaluation | ReconstructionScore | None
    best_top1: float | None
    clips: int
    bad_samples: int
    skipped_steps: int
    seconds: float
    data_wait_share: float
    stopped_by: str | None

    @property
    def clips_per_second(self) -> float:
        """Pace over all processes."""
        return self.clips / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C; 0 otherwise, also after SIGTERM and SIGUSR1, so that a batch system starts it again."""
        return 130 if self.stopped_by == "SIGINT" else 0

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        pace = {"clips_per_second": self.clips_per_second, "exit_code": self.exit_code}
        evaluation = self.evaluation and self.evaluation.to_json()
        return {**asdict(replace(self, evaluation=None)), "evaluation": evaluation, "out": str(self.out), **pace}

    def line(self) -> str:
        """One line for people."""
        if self.stopped_by is not None:
            return f"stopped by {self.stopped_by} at step {self.steps}, saved; --resume goes on from there"
        bad = f", {self.bad_samples} damaged samples left out" if self.bad_samples else ""
        if self.skipped_steps:
            bad += f", {self.skipped_steps} steps left out whose loss or gradients were not finite"
        best = f", best top-1 {self.best_top1:.1%}" if self.best_top1 is not None else ""
        pace = f"{duration(self.seconds)} of training at {self.clips_per_second:.1f} clips/s"
        return f"done: {self.steps} steps{best}{bad}; {pace}, {self.data_wait_share:.1%} of it waiting for data; {self.out}"
