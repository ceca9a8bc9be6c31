"""What is looked at of a step, once its numbers are on the host; that nothing else is waited for is a GPU's test."""

from __future__ import annotations

import torch

from vidpipe.train.step import StepResult
from vidpipe.train.step_numbers import QueuedNumbers


def test_the_numbers_are_those_of_the_step() -> None:
    result = StepResult(
        loss=torch.tensor(0.25),
        correct=torch.tensor(3),
        labelled=torch.tensor(5),
        clips=torch.tensor(7),
        grad_norm=torch.tensor(2.0),
        keys=("a", "b"),
        left_out=True,
    )
    numbers = QueuedNumbers(result).read()
    assert (numbers.loss, numbers.correct, numbers.labelled, numbers.clips, numbers.grad_norm) == (0.25, 3, 5, 7, 2.0)
    assert numbers.keys == ("a", "b") and numbers.left_out


def test_where_labels_are_mixed_nothing_is_correct() -> None:
    one = torch.tensor(1.0)
    result = StepResult(loss=one, correct=None, labelled=one, clips=one, grad_norm=one, keys=(), left_out=False)
    assert QueuedNumbers(result).read().correct is None
