"""A step's numbers on their way to the host, which waits for that step alone and not for what was queued after it."""

from __future__ import annotations

import torch
from torch import Tensor

from vidpipe.train.step import StepResult


class StepNumbers:
    """What is looked at of a step. When this is made, copies to the host are queued behind the step; reading waits for them.

    `float()` of a tensor on a GPU would queue its copy when it is called, behind the steps that were begun meanwhile, and wait
    for those, too.
    """

    def __init__(self, result: StepResult) -> None:
        self._loss, self._clips = _queued(result.loss), _queued(result.clips)
        self._labelled, self._grad_norm = _queued(result.labelled), _queued(result.grad_norm)
        self._correct = None if result.correct is None else _queued(result.correct)
        self._ready: torch.cuda.Event | None = None
        if result.loss.is_cuda:
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(torch.cuda.current_stream(result.loss.device))
        self.keys, self.left_out = result.keys, result.left_out

    def wait(self) -> None:
        """Until they are there."""
        if self._ready is not None:
            self._ready.synchronize()
            self._ready = None

    @property
    def loss(self) -> float:
        """As in `StepResult`."""
        self.wait()
        return float(self._loss)

    @property
    def grad_norm(self) -> float:
        """As in `StepResult`."""
        self.wait()
        return float(self._grad_norm)

    @property
    def clips(self) -> int:
        """As in `StepResult`."""
        self.wait()
        return int(self._clips)

    @property
    def labelled(self) -> int:
        """As in `StepResult`."""
        self.wait()
        return int(self._labelled)

    @property
    def correct(self) -> int | None:
        """As in `StepResult`."""
        self.wait()
        return None if self._correct is None else int(self._correct)


def _queued(value: Tensor) -> Tensor:
    return value.detach().to("cpu", non_blocking=True)  # from a GPU into page-locked memory
