"""What is watched over a run: losses and gradients that are not finite, gradients that jump."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from vidpipe.errors import TrainingError
from vidpipe.files import whole_file

BAD_BATCHES = "bad-batches.jsonl"
SPIKES = "gradient-spikes.jsonl"
_SPIKE = 10.0  # times the usual gradient norm that is worth a line


def forget_steps_after(folder: Path, step: int) -> None:
    """Take out of a run folder what was written down about later steps than the one that a run begins or goes on at."""
    for path in (folder / BAD_BATCHES, folder / SPIKES):
        if not path.is_file():
            continue
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        if not kept:
            path.unlink()
            continue
        with whole_file(path) as stream:
            stream.write("".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):  # torn, as by a full disk
        return math.inf


class Guard:
    """Looks at each step's numbers.

    Args:
        folder: of the run. Each process appends its clips of a batch that is bad, or whose gradients jump, to a file in it, one
            JSON object a line.
        policy: `raise` ends the run at a loss or gradients that are not finite, `skip` leaves the batch out.
        max_skips: steps in a row that may be left out, the last of which ends the run too.
        rank: of this process.
        say: prints a sentence.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policy: Literal["raise", "skip"],
        max_skips: int,
        rank: int,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._policy, self._max_skips, self._rank, self._say = folder, policy, max_skips, rank, say
        self._usual_norm = 0.0
        self._skips_in_a_row = 0

    def accepts(
        self,
        *,
        step: int,
        loss: float,
        grad_norm: float | None,
        keys: Sequence[str],
        left_out: bool = False,
        overflowed: bool = False,
    ) -> bool:
        """Whether a step counts.

        Args:
            grad_norm: None where it has no meaning.
            left_out: the weights don't have it, for what may be another process's loss.
            overflowed: nor here, for gradients beyond fp16 under the scale that was tried; the loss counts all the same.

        Raises:
            TrainingError: its loss or its gradients are not finite, and the policy is to stop, or it is one too many in a row.
        """
        what = None
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif grad_norm is not None and not math.isfinite(grad_norm):
            what = f"the norm of the gradients is {grad_norm}"
        if what is not None:
            self._not_finite(f"step {step}: {what}", step=step, loss=loss, keys=keys)
        if what is not None or left_out:
            self._count_skip(step)
            return False
        if overflowed:
            self._count_skip(step)
            return True
        self._skips_in_a_row = 0
        if grad_norm is not None:
            self._watch(grad_norm, step=step, keys=keys)
        return True

    def accepts_evaluation(self, *, step: int, loss: float) -> bool:
        """Whether an evaluation counts: one whose loss is not finite can't be compared with others.

        Raises:
            TrainingError: it is not, and the policy is to stop.
        """
        if math.isfinite(loss):
            return True
        what = f"step {step}: the loss of the evaluation is {loss}"
        if self._policy == "raise":
            raise TrainingError(
                f"{what}; begin anew with a lower optim.lr or precision fp32, or go on with on_nan=skip and --resume"
            )
        self._say(f"{what}; not counted")
        return False

    def _watch(self, grad_norm: float, *, step: int, keys: Sequence[str]) -> None:
        """Write down a jump of the gradients' norm, which is the same on all processes, so that each writes its own clips."""
        if self._usual_norm and grad_norm > _SPIKE * self._usual_norm:
            path = self._write(SPIKES, step=step, grad_norm=grad_norm, usual=self._usual_norm, keys=keys)
            usual = f"usually {self._usual_norm:.3g}"
            self._say(f"step {step}: gradient norm {grad_norm:.3g}, {usual}; clips {_shown(keys)} (all in {path})")
            grad_norm = _SPIKE * self._usual_norm  # as much of it as may count as usual
        self._usual_norm = 0.95 * self._usual_norm + 0.05 * grad_norm if self._usual_norm else grad_norm

    def _count_skip(self, step: int) -> None:
        self._skips_in_a_row += 1
        if self._skips_in_a_row >= self._max_skips:
            raise TrainingError(
                f"step {step}: {self._skips_in_a_row} steps in a row were left out, as many as max_skips allows: the weights "
                "give nothing finite any more; begin anew with a lower optim.lr, with optim.clip_grad or with precision fp32"
            )

    def _not_finite(self, what: str, *, step: int, loss: float, keys: Sequence[str]) -> None:
        path = self._write(BAD_BATCHES, step=step, loss=str(loss), keys=keys)
        what = f"{what}; clips {_shown(keys)} (all in {path})"
        if self._policy == "raise":
            raise TrainingError(f"{what}; lower optim.lr, set optim.clip_grad, use precision fp32, or set on_nan=skip")
        self._say(f"{what}; left out")

    def _write(self, name: str, *, keys: Sequence[str], **values: float | str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)  # the first process's may be another machine's
        path = self._folder / name
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**values, "rank": self._rank, "keys": list(keys)}) + "\n")
        return path


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
