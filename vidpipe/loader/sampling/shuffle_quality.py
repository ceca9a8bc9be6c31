"""How near an order comes to a true shuffle. `python -m vidpipe.loader.sampling.shuffle_quality` prints docs/loading.md's table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidpipe.loader.sampling.order import GlobalOrder, Integers, Order, WindowedOrder

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class ShuffleQuality:
    """Measures of one epoch's order; what a true shuffle of many units gives is in brackets.

    Attributes:
        displacement: mean distance between a unit's position and its number, in thirds of the epoch (1).
        neighbour_distance: mean distance between the numbers of two units that follow each other, in thirds of the epoch (1).
        epoch_correlation: Spearman's rank correlation between the units' positions in this epoch and the next (0).
        same_shard: share of the pairs within a batch that are of one shard (1 / number of shards).
    """

    displacement: float
    neighbour_distance: float
    epoch_correlation: float
    same_shard: float


def shuffle_quality(order: Order, shard_of_unit: Integers) -> ShuffleQuality:
    """Measure the order of the first epoch, in batches of `BATCH_SIZE`.

    Args:
        shard_of_unit: int64 [order.size].
    """
    positions = np.arange(order.size)
    units = order.units(positions, 0)
    third = order.size / 3
    batches = shard_of_unit[units[: order.size // BATCH_SIZE * BATCH_SIZE]].reshape(-1, BATCH_SIZE)
    pairs = BATCH_SIZE * (BATCH_SIZE - 1)
    alike = [(np.unique(batch, return_counts=True)[1] ** 2).sum() - BATCH_SIZE for batch in batches]
    return ShuffleQuality(
        displacement=float(np.abs(units - positions).mean() / third),
        neighbour_distance=float(np.abs(np.diff(units)).mean() / third),
        epoch_correlation=float(np.corrcoef(np.argsort(units), np.argsort(order.units(positions, 1)))[0, 1]),
        same_shard=float(np.mean(alike) / pairs),
    )


def main() -> None:
    """Print the table for as many units as Kinetics-400 has, in shards of 512 MB."""
    counts = np.full(2000, 130)
    shard_of_unit = np.repeat(np.arange(len(counts)), counts)
    orders: dict[str, Order] = {
        f"windows of {window}": WindowedOrder(counts, window=window, seed=0) for window in (1, 2, 4, 8, 16, 32)
    }
    orders["global"] = GlobalOrder(int(counts.sum()), seed=0)
    print("| order | displacement | neighbours | epoch to epoch | same shard |\n|---|---|---|---|---|")
    for name, order in orders.items():
        q = shuffle_quality(order, shard_of_unit)
        values = f"{q.displacement:.3f} | {q.neighbour_distance:.3f} | {q.epoch_correlation:+.3f} | {q.same_shard:.2%}"
        print(f"| {name} | {values} |")


if __name__ == "__main__":
    main()
