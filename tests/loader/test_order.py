"""The order is a true permutation, the ranks' shares cover it, and a change of world size loses and repeats nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidpipe.loader.sampling.order import GlobalOrder, Share, WindowedOrder, permute
from vidpipe.loader.sampling.shuffle_quality import shuffle_quality


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
    """Only the last step has padding, and repeats its own beginning."""
    seen: list[int] = []
    padding: list[int] = []
    last = (size - 1) // (batch_size * world_size) * batch_size * world_size
    for rank in range(world_size):
        share = Share(size, 0, rank, world_size)
        while share.num_batches(batch_size, drop_last=False):
            positions, is_padding = share.positions(batch_size)
            share = replace(share, consumed=share.after(batch_size))
            assert 0 < len(positions) <= batch_size
            seen += positions[~is_padding].tolist()
            padding += positions[is_padding].tolist()
    assert sorted(seen) == list(range(size))
    assert len(padding) < world_size and padding == [last + n % (size - last) for n in range(len(padding))]


def test_drop_last_gives_whole_batches_only() -> None:
    share = Share(103, 0, 1, 3)
    assert share.num_batches(4, drop_last=True) == 8
    assert all(len(replace(share, consumed=12 * batch).positions(4)[0]) == 4 for batch in range(8))


def test_values_for_each_position_give_what_they_give_alone() -> None:
    size, epoch, stream = np.array([5, 900, 900, 77]), np.array([0, 3, 3, 8]), np.array([1, 1, 2, -3])
    together = permute(np.array([4, 10, 10, 30]), size=size, seed=9, epoch=epoch, stream=stream)
    for place, position in enumerate([4, 10, 10, 30]):
        alone = permute(
            np.array([position]), size=int(size[place]), seed=9, epoch=int(epoch[place]), stream=int(stream[place])
        )
        assert together[place] == alone[0]
    assert together[1] != together[2]


@pytest.mark.parametrize("window", [1, 3, 8, 100])
def test_windows_hold_all_units_and_few_shards(window: int) -> None:
    counts = np.array([5, 0, 40, 7, 1, 13, 22, 0, 9, 30])
    order = WindowedOrder(counts, window=window, seed=4)
    shard_of = np.repeat(np.arange(len(counts)), counts)
    orders = [order.units(np.arange(order.size), epoch) for epoch in range(2)]
    for epoch, units in enumerate(orders):
        np.testing.assert_array_equal(np.sort(units), np.arange(counts.sum()))
        position = 0
        for first in range(0, 8, window):  # two of the ten shards are empty
            here = order.shards_ahead(position, epoch)[0]
            assert len(here) == min(window, 8 - first)
            end = position + int(counts[here].sum())
            assert set(shard_of[units[position:end]]) == set(here)
            position = end
        assert position == order.size
    assert not np.array_equal(*orders)


def test_the_shards_ahead_are_those_of_the_next_window_and_epoch() -> None:
    order = WindowedOrder(np.full(7, 10), window=3, seed=0)
    shard_of = np.repeat(np.arange(7), 10)
    first, second = (shard_of[order.units(np.arange(70), epoch)] for epoch in (0, 1))
    assert [set(window) for window in order.shards_ahead(0, 0)] == [set(first[:30]), set(first[30:60])]
    assert [set(window) for window in order.shards_ahead(35, 0)] == [set(first[30:60]), {first[69]}]
    assert [set(window) for window in order.shards_ahead(69, 0)] == [{first[69]}, set(second[:30])]
    even = WindowedOrder(np.full(6, 10), window=3, seed=0)
    first, second = (shard_of[even.units(np.arange(60), epoch)] for epoch in (0, 1))
    assert [set(window) for window in even.shards_ahead(59, 0)] == [set(first[30:]), set(second[:30])]


def test_shuffle_quality_tells_orders_apart() -> None:
    class Sequential:
        size = 20_000

        def units(self, positions: np.ndarray, epoch: int) -> np.ndarray:
            return positions

    counts = np.full(200, 100)
    shard_of = np.repeat(np.arange(200), counts)
    whole, windowed, none = (
        shuffle_quality(order, shard_of)
        for order in (GlobalOrder(20_000, seed=0), WindowedOrder(counts, window=8, seed=0), Sequential())
    )
    assert whole.displacement == pytest.approx(1, abs=0.03) and whole.neighbour_distance == pytest.approx(1, abs=0.03)
    assert abs(whole.epoch_correlation) < 0.03 and whole.same_shard == pytest.approx(1 / 200, abs=0.002)
    assert windowed.displacement > 0.85 and 0.8 < windowed.neighbour_distance < 0.97
    assert abs(windowed.epoch_correlation) < 0.25 and windowed.same_shard == pytest.approx(1 / 8, abs=0.01)
    assert none.displacement == 0 and none.neighbour_distance < 0.001
    assert none.epoch_correlation == pytest.approx(1) and none.same_shard > 0.8
