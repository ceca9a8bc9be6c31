"""The order of samples: a pure function of (seed, epoch, number of units), the same for every rank and after any resume.

A unit is a video or a clip. The permutation is a Feistel network over the next even power of two, walked until it falls
within the range (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), so no table of the data set's size is
kept and any position can be asked for alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # multipliers of SplitMix64


def permute(positions: NDArray[np.int64], *, size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which unit stands at each position of an epoch's global order.

    Args:
        positions: int64, any shape, each in [0, size).
        size: number of units.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    units = positions.astype(np.uint64)
    outside = np.ones(units.shape, bool)
    while outside.any():
        units[outside] = _feistel(units[outside], half_bits, keys)
        outside = units >= np.uint64(size)
    return units.astype(np.int64)


def keyed_integers(indices: NDArray[np.int64], *, seed: int, epoch: int, purpose: int) -> NDArray[np.uint64]:
    """64 random bits for each index, by (seed, epoch, index, purpose)."""
    key = _round_keys(seed, epoch)[0] ^ _mix(np.array([purpose + 1], np.uint64))[0]
    return _mix(_mix(indices.astype(np.uint64)) ^ key)


def _feistel(values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    return np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64).astype(np.uint64)


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

    def positions(self, batch: int, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Positions of one batch in the global order, and which of them are only padding.

        All ranks' batch number `batch` together cover the same run of `batch_size * world_size` positions, for every number
        of ranks; so the state is one number. In the last run, what is left is dealt out evenly: at most world_size - 1
        positions are repeated from the run's beginning.
        """
        start = self.consumed + batch * batch_size * self.world_size
        run = min(batch_size * self.world_size, self.size - start)
        each = -(-run // self.world_size)
        places = np.arange(each, dtype=np.int64) * self.world_size + self.rank
        padding = places >= run
        return start + np.where(padding, places % run, places), padding
