"""The order is a true permutation, the ranks' shares cover it, and a change of world size loses and repeats nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vidpipe.loader.order import Share, permute


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 4097])
def test_every_unit_occurs_once_and_epochs_differ(size: int) -> None:
    orders = [permute(np.arange(size), size=size, seed=0, epoch=epoch) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size > 16:
        assert not np.array_equal(orders[0], orders[1])
        assert not np.array_equal(orders[0], permute(np.arange(size), size=size, seed=1, epoch=0))


def test_the_shuffle_is_global() -> None:
    size = 20_000
    order = permute(np.arange(size), size=size, seed=3, epoch=5)
    assert abs(np.corrcoef(np.arange(size), order)[0, 1]) < 0.03
    neighbours = np.abs(np.diff(order))
    assert (
        abs(neighbours.mean() / (size / 3) - 1) < 0.05
    )  # two independent uniform places lie size / 3 apart on average
    first_tenth = np.bincount(order[: size // 10] * 10 // size, minlength=10)
    assert first_tenth.min() > 140 and first_tenth.max() < 260


def test_a_hundred_million_samples_need_no_table() -> None:
    size = 100_000_000
    units = permute(np.arange(0, size, 100_003), size=size, seed=0, epoch=0)
    assert len(np.unique(units)) == len(units) and units.min() >= 0 and units.max() < size


@pytest.mark.parametrize(
    ("size", "world_size", "batch_size"), [(103, 3, 4), (10, 4, 4), (5, 8, 2), (64, 2, 8), (1, 3, 1)]
)
def test_ranks_cover_an_epoch_in_equal_steps(size: int, world_size: int, batch_size: int) -> None:
    seen: list[int] = []
    padding = 0
    for rank in range(world_size):
        share = Share(size, 0, rank, world_size)
        for number in range(share.num_batches(batch_size, drop_last=False)):
            positions, is_padding = share.positions(number, batch_size)
            assert 0 < len(positions) <= batch_size
            seen += positions[~is_padding].tolist()
            padding += int(is_padding.sum())
    assert sorted(seen) == list(range(size))
    assert padding < world_size


def test_world_sizes_may_change_between_steps() -> None:
    size, batch_size, consumed = 1000, 4, 0
    seen: list[int] = []
    for world_size, steps in [(2, 10), (3, 7), (2, 1), (5, 1000)]:
        shares = [Share(size, consumed, rank, world_size) for rank in range(world_size)]
        taken = min(steps, shares[0].num_batches(batch_size, drop_last=False))
        for number in range(taken):
            for share in shares:
                positions, is_padding = share.positions(number, batch_size)
                seen += positions[~is_padding].tolist()
        consumed = min(size, consumed + taken * batch_size * world_size)
    assert sorted(seen) == list(range(size))


def test_drop_last_gives_whole_batches_only() -> None:
    share = Share(103, 0, 1, 3)
    assert share.num_batches(4, drop_last=True) == 8
    assert all(len(share.positions(number, 4)[0]) == 4 for number in range(8))
