"""A step's numbers on their way to the host, which waits for that step alone and not for what was queued after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vidpipe.train.step import StepResult


@dataclass(frozen=True)
class StepNumbers:
    """A `StepResult` on the host."""

    loss: float
    correct: int | None
    labelled: int
    clips: int
    grad_norm: float
    keys: tuple[str, ...]
    left_out: bool


class QueuedNumbers:
    """When this is made, a copy of a step's numbers to the host is queued behind the step.

    `float()` of a tensor on a GPU would queue its copy when it is called, behind the steps that were begun meanwhile, and wait
    for those, too.
    """

    def __init__(self, result: StepResult) -> None:
        self._result = result
        values = [result.loss, result.grad_norm, result.clips, result.labelled]
        values += [result.correct] if result.correct is not None else []
        together = torch.stack([value.detach().double() for value in values])  # which holds any number of clips exactly
        self._values = together.to("cpu", non_blocking=True)  # from a GPU into page-locked memory
        self._ready: torch.cuda.Event | None = None
        if together.is_cuda:
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(torch.cuda.current_stream(together.device))

    def read(self) -> StepNumbers:
        """The numbers, once they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, grad_norm, clips, labelled, *correct = self._values.tolist()
        return StepNumbers(
            loss=loss,
            correct=int(correct[0]) if correct else None,
            labelled=int(labelled),
            clips=int(clips),
            grad_norm=grad_norm,
            keys=self._result.keys,
            left_out=self._result.left_out,
        )
