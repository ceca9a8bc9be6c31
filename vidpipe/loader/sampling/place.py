"""Where the consumer of a loader is: in which epoch, and how much of it all ranks together have been given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from vidpipe.errors import UsageError
from vidpipe.loader.checks import check_whole
from vidpipe.loader.sampling.order import Share

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a batch stands.

    Attributes:
        epoch: that it is of.
        consumed: samples of the epoch that come before it, over all ranks.
    """

    epoch: int
    consumed: int


class Place:
    """One for each loader. Iterating anew, and going elsewhere, leaves iterators under way without a place: they say so.

    Args:
        num_samples: of an epoch, over all ranks.
        batch_size: samples of a batch, on each rank.
        rank, world_size: of this process.
        drop_last: leave out the last batch if it is short.
        whole_passes: what a loop left of an epoch when it was broken off is not given to the next one, which begins another
            epoch.
    """

    def __init__(
        self, num_samples: int, *, batch_size: int, rank: int, world_size: int, drop_last: bool, whole_passes: bool
    ) -> None:
        self._num_samples, self._batch_size, self._drop_last = num_samples, batch_size, drop_last
        self._rank, self._world_size, self._whole_passes = rank, world_size, whole_passes
        self._is_loaded, self._ahead = False, 0
        self.go(Spot(0, 0))

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return self._num_batches(Spot(0, 0))

    @property
    def epoch(self) -> int:
        """That of the last batch that was given, as long as its iterator is in use; then that of the next one."""
        return self._spot.epoch

    @property
    def next(self) -> Spot:
        """That of the next batch."""
        return self._first_batch(self._spot)

    def go(self, spot: Spot) -> None:
        """Go on from there; from an epoch's end with the next one."""
        self._spot = self._first_batch(spot)
        self._visit, self._is_begun = object(), False

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless batches of it are left to be given.

        Raises:
            UsageError: there is no such epoch.
        """
        check_whole("epoch", epoch, 0)
        if epoch != self._spot.epoch or epoch != self.next.epoch or self._gives_up_rest:
            self.go(Spot(epoch, 0))

    def load(self, spot: Spot) -> None:
        """Go on from there, as a state says, whatever epoch a trainer counts."""
        self.go(spot)
        self._is_loaded = True

    def reach(self, count: int) -> None:
        """Go to the start of an epoch that is yet to come, by a trainer's count; never back.

        Of counts that are ahead of an epoch that was loaded and is to begin, those that follow are as much ahead.

        Raises:
            UsageError: there is no such epoch.
        """
        check_whole("epoch", count, 0)
        if self._is_loaded and self._spot.consumed == 0:
            self._ahead = max(0, count - self.epoch)
        if count - self._ahead > self.epoch:
            self.go(Spot(count - self._ahead, 0))

    def share(self, spot: Spot) -> Share:
        """What this rank takes of an epoch from a spot on."""
        return Share(self._num_samples, spot.consumed, self._rank, self._world_size)

    def following(self, spot: Spot) -> Spot:
        """That of the batch after the one at a spot, through all epochs."""
        return self._first_batch(self._after(spot))

    def run(self, make: Callable[[Spot, int], Iterator[T]]) -> Iterator[T]:
        """What is left of an epoch; of one of which nothing is, or whose rest is given up, the next one.

        Args:
            make: gives the batches of an epoch from a spot on, which are so many.

        Raises:
            UsageError: the loader was iterated anew, or went elsewhere, since the last batch.
        """
        self.go(Spot(self._spot.epoch + 1, 0) if self._gives_up_rest else self._spot)
        visit, following = self._visit, self._spot
        try:
            for batch in make(self._spot, self._num_batches(self._spot)):
                self._check(visit)
                self._spot, self._is_begun, self._is_loaded = self._after(self._spot), True, False
                # Now: an iterator that is left to the interpreter's end can call nothing any more.
                following = self.next
                yield batch
                self._check(visit)
        finally:
            if visit is self._visit:
                self._spot, self._visit = following, object()

    @property
    def _gives_up_rest(self) -> bool:
        """Whether a loop has begun the epoch under way, and a new one would begin another."""
        return self._whole_passes and self._is_begun and self.next.consumed > 0

    def _after(self, spot: Spot) -> Spot:
        return Spot(spot.epoch, self.share(spot).after(self._batch_size))

    def _first_batch(self, spot: Spot) -> Spot:
        return spot if self._num_batches(spot) else Spot(spot.epoch + 1, 0)

    def _num_batches(self, spot: Spot) -> int:
        return self.share(spot).num_batches(self._batch_size, drop_last=self._drop_last)

    def _check(self, visit: object) -> None:
        if visit is not self._visit:
            raise UsageError(
                "loader: this iterator was left behind by a newer one, or by load_state_dict or set_epoch; go on with the newer "
                "one, or call iter(loader) again"
            )


class EpochSetter:
    """What trainers find in a loader where a `DataLoader` has its samplers, and tell which epoch they begin.

    Their counts may begin at 0 again where a loader goes on from a state, or be behind where it goes through its data more than once
    in one of their epochs. So what they say takes a loader forward, and never back to clips that it has given.

    Attributes:
        batch_size: clips a batch.
    """

    def __init__(self, place: Place, batch_size: int) -> None:
        self._place, self.batch_size = place, batch_size

    @property
    def sampler(self) -> EpochSetter:
        """This: what is asked of a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch that is yet to come; does nothing in that epoch, or beyond it."""
        self._place.reach(epoch)
