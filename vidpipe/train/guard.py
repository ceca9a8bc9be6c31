"""What is watched over a run: losses and gradients that are not finite, gradients that jump."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from vidpipe.errors import TrainingError

BAD_BATCHES = "bad-batches.jsonl"
_SPIKE = 10.0  # times the usual gradient norm that is worth a line


class Guard:
    """Looks at each step's numbers.

    Args:
        path: file to which the clips of a bad batch are appended, one JSON object a line.
        policy: `raise` ends the run at a loss or gradients that are not finite, `skip` leaves the batch out.
        rank: of this process.
        say: prints a sentence.
    """

    def __init__(self, path: Path, *, policy: Literal["raise", "skip"], rank: int, say: Callable[[str], None]) -> None:
        self._path, self._policy, self._rank, self._say = path, policy, rank, say
        self._usual_norm = 0.0

    def accepts(self, *, step: int, loss: float, grad_norm: float | None, keys: Sequence[str]) -> bool:
        """Whether a step counts.

        Args:
            grad_norm: None where it has no meaning.

        Raises:
            TrainingError: its loss or its gradients are not finite, and the policy is to stop.
        """
        if not math.isfinite(loss):
            self._not_finite(f"step {step}: the loss is {loss}", step, loss, keys)
            return False
        if grad_norm is None:
            return True
        if not math.isfinite(grad_norm):
            self._not_finite(f"step {step}: the norm of the gradients is {grad_norm}", step, loss, keys)
            return False
        if self._usual_norm and grad_norm > _SPIKE * self._usual_norm:
            usual = f"usually {self._usual_norm:.3g}"
            self._say(f"step {step}: gradient norm {grad_norm:.3g}, {usual}; clips {_shown(keys)}")
            grad_norm = _SPIKE * self._usual_norm  # as much of it as may count as usual
        self._usual_norm = 0.95 * self._usual_norm + 0.05 * grad_norm if self._usual_norm else grad_norm
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

    def _not_finite(self, what: str, step: int, loss: float, keys: Sequence[str]) -> None:
        line = json.dumps({"step": step, "loss": str(loss), "rank": self._rank, "keys": list(keys)})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        what = f"{what}; clips {_shown(keys)} (all in {self._path})"
        if self._policy == "raise":
            raise TrainingError(f"{what}; lower optim.lr, set optim.clip_grad, use precision fp32, or set on_nan=skip")
        self._say(f"{what}; left out")


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
