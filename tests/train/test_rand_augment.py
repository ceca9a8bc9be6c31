"""RandAugment: every operation keeps a clip a clip, the same in all frames, drawn from (seed, epoch, key) alone."""

from __future__ import annotations

import pytest
import torch

from vidpipe.shards.manifest import Normalization
from vidpipe.train.rand_augment import OPERATIONS, RandAugment, draw_operations, rand_augment


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_does_the_same_to_equal_frames(name: str) -> None:
    frame = torch.randint(0, 256, (1, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = frame.expand(5, -1, -1, -1)
    for sign in (-1, 1):
        result = OPERATIONS[name](frames, 0.7, sign)
        assert result.dtype == torch.uint8
        assert result.shape == frames.shape
        assert torch.equal(result, result[:1].expand_as(result))
    if name != "auto_contrast":
        assert not torch.equal(result, frames)


def test_a_clip_gets_the_same_in_any_batch_and_other_things_in_another_epoch() -> None:
    video = torch.randn(4, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    keys = ["a", "b", "c", "d"]

    def run(which: list[int], epoch: int = 0) -> torch.Tensor:
        return rand_augment(
            video[which],
            keys=[keys[i] for i in which],
            policy=RandAugment(),
            normalization=Normalization(),
            seed=0,
            epoch=epoch,
        )

    together = run([0, 1, 2, 3])
    assert torch.equal(together[2:3], run([2]))
    assert not torch.equal(together, run([0, 1, 2, 3], epoch=1))


def test_the_policys_numbers_are_kept() -> None:
    drawn = [draw_operations(RandAugment(ops=4, magnitude=7), str(i), seed=0, epoch=0) for i in range(1000)]
    strengths = [strength for operations in drawn for _, strength, _ in operations]
    assert sum(map(len, drawn)) / 1000 == pytest.approx(2.0, abs=0.1)
    assert sum(strengths) / len(strengths) == pytest.approx(0.7, abs=0.01)
    assert {name for operations in drawn for name, _, _ in operations} == set(OPERATIONS)
