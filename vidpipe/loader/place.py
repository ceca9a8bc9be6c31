"""Where the consumer of a loader is: in which epoch, and how much of it all ranks together have been given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from vidpipe.errors import UsageError
from vidpipe.loader.checks import check_whole
from vidpipe.loader.order import Share

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Spot:
    epoch: int
    consumed: int


class Place:
    """One for each loader. Iterating anew, and going elsewhere, leaves iterators under way without a place: they say so.

    Args:
        num_samples: of an epoch, over all ranks.
        batch_size: samples of a batch, on each rank.
        rank, world_size: of this process.
        drop_last: leave out the last batch if it is short.
    """

    def __init__(self, num_samples: int, *, batch_size: int, rank: int, world_size: int, drop_last: bool) -> None:
        self._num_samples, self._batch_size, self._drop_last = num_samples, batch_size, drop_last
        self._rank, self._world_size = rank, world_size
        self._spot = _Spot(0, 0)

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return self._num_batches(self._share(0))

    @property
    def epoch(self) -> int:
        """That of the last batch that was given, as long as its iterator is in use; then that of the next one."""
        return self._spot.epoch

    @property
    def next(self) -> tuple[int, int]:
        """The epoch of the next batch, and how many samples of it come before that."""
        return self._first_batch(self._spot.epoch, self._spot.consumed)

    def go(self, epoch: int, consumed: int) -> None:
        """Go on from there; from an epoch's end with the next one."""
        self._spot = _Spot(*self._first_batch(epoch, consumed))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless batches of it are left.

        Raises:
            UsageError: there is no such epoch.
        """
        check_whole("epoch", epoch, 0)
        if epoch != self._spot.epoch or epoch != self.next[0]:
            self.go(epoch, 0)

    def run(self, make: Callable[[int, Share, int], Iterator[T]]) -> Iterator[T]:
        """What is left of an epoch; of one of which nothing is, the next one.

        Args:
            make: gives the batches of an epoch, of this share of its samples, and their number.

        Raises:
            UsageError: the loader was iterated anew, or went elsewhere, since the last batch.
        """
        self._move_on()
        spot, share = self._spot, self._share(self._spot.consumed)
        try:
            for number, batch in enumerate(make(spot.epoch, share, self._num_batches(share)), start=1):
                self._check(spot)
                spot.consumed = min(share.size, share.run_start(number, self._batch_size))
                yield batch
                self._check(spot)
        finally:
            if spot is self._spot:
                self._move_on()

    def _first_batch(self, epoch: int, consumed: int) -> tuple[int, int]:
        return (epoch, consumed) if self._num_batches(self._share(consumed)) else (epoch + 1, 0)

    def _move_on(self) -> None:
        self.go(self._spot.epoch, self._spot.consumed)

    def _share(self, consumed: int) -> Share:
        return Share(self._num_samples, consumed, self._rank, self._world_size)

    def _num_batches(self, share: Share) -> int:
        return share.num_batches(self._batch_size, drop_last=self._drop_last)

    def _check(self, spot: _Spot) -> None:
        if spot is not self._spot:
            raise UsageError(
                "loader: this iterator was left behind by a newer one, or by load_state_dict or set_epoch; go on with the newer "
                "one, or call iter(loader) again"
            )
