"""The order of an epoch: a pure function of (seed, epoch, position), the same for every rank and after any resume.

A unit is a video or a clip. The permutation is a Feistel network over the next even power of two, walked until it falls
within the range (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), so no table of the data set's size is
kept and any position can be asked for alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # multipliers of SplitMix64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # its increment

Integers = NDArray[np.int64]


def permute(
    positions: Integers, *, size: int | Integers, seed: int, epoch: int | Integers, stream: int | Integers = 0
) -> Integers:
    """Which unit stands at each position of a permuted range.

    Args:
        positions: int64 [N], each in [0, size).
        size: number of units; like `epoch` and `stream` one for all positions, or one for each.
        stream: tells permutations of one epoch apart.
    """
    sizes = np.broadcast_to(np.asarray(size, np.uint64), positions.shape)
    half_bits = np.maximum(1, (np.frexp((sizes - np.uint64(1)).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    keys = _round_keys(seed, epoch, stream)
    keys = np.broadcast_to(keys, (_ROUNDS, *positions.shape))
    units = positions.astype(np.uint64)
    outside = np.arange(len(units))
    while len(outside):
        units[outside] = _feistel(units[outside], half_bits[outside], keys[:, outside])
        outside = outside[units[outside] >= sizes[outside]]
    return units.astype(np.int64)


def keyed_integers(indices: Integers, *, seed: int, epoch: int, purpose: int) -> NDArray[np.uint64]:
    """64 random bits for each index, by (seed, epoch, index, purpose)."""
    return _mix(_mix(indices.astype(np.uint64)) ^ _key(seed, epoch, ~purpose))


def _feistel(values: NDArray[np.uint64], half_bits: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half_bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


def _key(*values: int | Integers) -> NDArray[np.uint64]:
    """64 bits by some numbers, elementwise where they are arrays; at least one-dimensional."""
    key = np.zeros(1, np.uint64)
    for value in values:
        key = _mix(key ^ np.asarray(value, np.int64).astype(np.uint64))
    return key


def _round_keys(seed: int, epoch: int | Integers, stream: int | Integers) -> NDArray[np.uint64]:
    """[_ROUNDS, N], where N is 1 unless epoch or stream is an array."""
    return np.stack([_key(seed, epoch, stream, number) for number in range(_ROUNDS)])


class Order(Protocol):
    """Which unit stands at each position of an epoch."""

    size: int

    def units(self, positions: Integers, epoch: int) -> Integers:
        """Units of some positions, int64 of the same length."""


class GlobalOrder:
    """Every unit may stand anywhere: a true permutation of all of them."""

    def __init__(self, size: int, *, seed: int) -> None:
        self.size, self._seed = size, seed

    def units(self, positions: Integers, epoch: int) -> Integers:
        """Units of some positions."""
        return permute(positions, size=self.size, seed=self._seed, epoch=epoch)


class WindowedOrder:
    """Shards in a permuted order, and the units of each run of `window` shards permuted among themselves.

    So only `window` shards are in use at a time, which is what storage far away or with slow seeks wants. Memory is one entry
    for each shard.

    Args:
        counts: units of each shard; units are numbered shard by shard.
        window: shards that are shuffled together.
    """

    def __init__(self, counts: Integers, *, window: int, seed: int) -> None:
        self.size, self._window, self._seed = int(counts.sum()), window, seed
        self._shards = np.flatnonzero(counts)
        self._counts = counts[self._shards]
        self._first = (np.cumsum(counts) - counts)[self._shards]
        self._cached: tuple[int, Integers, Integers] | None = None

    def units(self, positions: Integers, epoch: int) -> Integers:
        """Units of some positions."""
        order, ends = self._epoch(epoch)
        bounds = np.concatenate([[0], ends[self._window - 1 :: self._window], ends[-1:]])
        number = np.searchsorted(bounds, positions, side="right") - 1
        begin = bounds[number]
        within = permute(
            positions - begin, size=bounds[number + 1] - begin, seed=self._seed, epoch=epoch, stream=number + 1
        )
        place = np.searchsorted(ends, begin + within, side="right")
        shard = order[place]
        units: Integers = self._first[shard] + begin + within - (ends[place] - self._counts[shard])
        return units

    def shards_ahead(self, position: int, epoch: int) -> list[list[int]]:
        """The shards of the window that a position is in, and those of the next one."""
        order, ends = self._epoch(epoch)
        first = int(np.searchsorted(ends, position, side="right")) // self._window * self._window
        end = first + self._window
        after = order[end : end + self._window] if end < len(order) else self._epoch_order(epoch + 1)[: self._window]
        return [self._shards[window].tolist() for window in (order[first:end], after)]

    def _epoch(self, epoch: int) -> tuple[Integers, Integers]:
        """The shards in their order, and the position at which each one's units would end if it were read alone."""
        if self._cached is None or self._cached[0] != epoch:
            order = self._epoch_order(epoch)
            self._cached = (epoch, order, np.cumsum(self._counts[order]))
        return self._cached[1:]

    def _epoch_order(self, epoch: int) -> Integers:
        return permute(np.arange(len(self._shards)), size=len(self._shards), seed=self._seed, epoch=epoch)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank takes of an epoch's remainder.

    Attributes:
        size: units in the epoch.
        consumed: units that all ranks together have taken already.
        rank, world_size: of this process.
    """

    size: int
    consumed: int
    rank: int
    world_size: int

    def num_batches(self, batch_size: int, *, drop_last: bool) -> int:
        """Batches that this rank, like every other, gets of the remainder."""
        rest = self.size - self.consumed
        if drop_last:
            return rest // (batch_size * self.world_size)
        return -(-rest // (batch_size * self.world_size))

    def positions(self, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Positions of the next batch in the global order, and which of them are only padding.

        All ranks' next batches together cover a run of `batch_size * world_size` positions, whatever number of ranks there
        is; so the state is one number. Each takes neighbours in it: several views of one clip are then one read. In the last
        run, what is left is dealt out evenly: at most world_size - 1 positions are repeated from the run's beginning.
        """
        start = self.consumed
        run = min(batch_size * self.world_size, self.size - start)
        each = -(-run // self.world_size)
        places = np.arange(each, dtype=np.int64) + self.rank * each
        padding = places >= run
        return start + np.where(padding, places % run, places), padding

    def after(self, batch_size: int) -> int:
        """Units that all ranks together have taken after their next batches."""
        return min(self.size, self.consumed + batch_size * self.world_size)
