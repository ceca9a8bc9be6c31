"""What is watched over a run: losses that are not finite, gradients that jump, memory that runs out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from vidpipe.errors import TrainingError

BAD_BATCHES = "bad-batches.jsonl"
_SPIKE = 10.0  # times the usual gradient norm that is worth a line


class Guard:
    """Looks at each step's numbers.

    Args:
        path: file to which the clips of a bad batch are appended, one JSON object a line.
        policy: `raise` ends the run at a loss that is not finite, `skip` leaves the batch out.
        rank: of this process.
        say: prints a sentence.
    """

    def __init__(self, path: Path, *, policy: Literal["raise", "skip"], rank: int, say: Callable[[str], None]) -> None:
        self._path, self._policy, self._rank, self._say = path, policy, rank, say
        self._usual_norm = 0.0

    def accepts(self, *, step: int, loss: float, grad_norm: float | None, keys: Sequence[str]) -> bool:
        """Whether a step counts.

        Raises:
            TrainingError: its loss is not finite, and the policy is to stop.
        """
        if not math.isfinite(loss):
            self._not_finite(step, loss, list(keys))
            return False
        if grad_norm is not None:
            self._watch(step, grad_norm)
        return True

    def _not_finite(self, step: int, loss: float, keys: list[str]) -> None:
        line = json.dumps({"step": step, "loss": str(loss), "rank": self._rank, "keys": keys})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        what = f"step {step}: the loss is {loss}; clips {shown} (all in {self._path})"
        if self._policy == "raise":
            raise TrainingError(f"{what}; lower optim.lr, set optim.clip_grad, use precision fp32, or set on_nan=skip")
        self._say(f"{what}; left out")

    def _watch(self, step: int, norm: float) -> None:
        if self._usual_norm and norm > _SPIKE * self._usual_norm:
            self._say(f"step {step}: gradient norm {norm:.3g}, usually {self._usual_norm:.3g}")
        if math.isfinite(norm):
            self._usual_norm = 0.95 * self._usual_norm + 0.05 * norm if self._usual_norm else norm


def out_of_memory(device: torch.device, *, clips: int, accumulate: int) -> str:
    """What to say when a GPU's memory didn't suffice for `clips` clips at a time."""
    total = torch.cuda.get_device_properties(device).total_memory
    return (
        f"out of GPU memory ({total / 2**30:.0f} GiB) with {clips} clips at a time; set "
        f"optim.accumulate={2 * accumulate} (same result in smaller parts), model.checkpointing=true, "
        "or a smaller --batch-size"
    )
