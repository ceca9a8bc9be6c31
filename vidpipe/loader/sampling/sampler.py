"""Which samples an epoch holds, how often, and in which order: a pure function of (seed, epoch, position).

An epoch is a row of slots, one for each unit (a video or a clip) that it gives; an order permutes them. Plainly, there is one
slot for each unit. With weights or balance, units are in groups with a quota of slots each: a group's slots go through its
units in a permuted order, over and over, and the next epoch goes on where the last one ended. So every unit comes before any
comes again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError
from vidpipe.loader.options import LoaderOptions
from vidpipe.loader.reading.index import SampleIndex
from vidpipe.loader.reading.source import Source
from vidpipe.loader.sampling.order import GlobalOrder, Integers, Order, WindowedOrder, keyed_integers, permute

_BLOCK = 4096  # positions that are drawn together: numpy takes as long for them as for ten
_REPEAT_BITS = 40  # above any number of samples, so that a unit and its repeat fit one integer


@dataclass(frozen=True, slots=True)
class DrawnUnits:
    """Units at some positions of an epoch; both int64 [N].

    Attributes:
        units: their numbers.
        repeats: how often each came before in the same epoch.
    """

    units: Integers
    repeats: Integers


class Units:
    """The videos or clips that are drawn from: those of the index, or a subset of its clips.

    Args:
        matching: bool [samples], the subset; None for all.
        by_video: a unit is a video with its clips (those in the subset) instead of a clip.
    """

    def __init__(self, index: SampleIndex, *, matching: NDArray[np.bool_] | None, by_video: bool) -> None:
        self._index = index
        self._samples = None if matching is None else np.flatnonzero(matching)
        self._first: Integers | None = None
        if by_video and self._samples is None:
            self._first = index.first_clip
        elif by_video and self._samples is not None:
            video = np.searchsorted(index.first_clip, self._samples, side="right")
            _, first = np.unique(video, return_index=True)
            self._first = np.append(first, len(self._samples))

    def __len__(self) -> int:
        if self._first is not None:
            return len(self._first) - 1
        return len(self._index) if self._samples is None else len(self._samples)

    def first_sample(self, units: Integers) -> Integers:
        """The first clip of each unit."""
        places = units if self._first is None else self._first[units]
        return places if self._samples is None else self._samples[places]

    def clip_counts(self) -> Integers:
        """How many clips each unit has."""
        return np.ones(len(self), np.int64) if self._first is None else np.diff(self._first)

    def clips(self, unit: int) -> Integers:
        """The clips of a unit, by their numbers in the index."""
        first, end = (unit, unit + 1) if self._first is None else self._first[unit : unit + 2]
        return np.arange(first, end) if self._samples is None else self._samples[first:end]

    def unit_of(self, sample: int) -> int:
        """The unit that a clip belongs to."""
        place = sample if self._samples is None else int(np.searchsorted(self._samples, sample))
        return place if self._first is None else int(np.searchsorted(self._first, place, side="right")) - 1

    def samples(self, drawn: DrawnUnits, *, seed: int, epoch: int, random: bool) -> Integers:
        """The sample of each unit: itself, or one clip of the video: by (seed, epoch, unit, repeat), or the middle one."""
        if self._first is None:
            return self.first_sample(drawn.units)
        first = self._first[drawn.units]
        count = self._first[drawn.units + 1] - first
        bits = keyed_integers(drawn.units + (drawn.repeats << _REPEAT_BITS), seed=seed, epoch=epoch, purpose=0)
        places = first + ((bits % count.astype(np.uint64)).astype(np.int64) if random else count // 2)
        return places if self._samples is None else self._samples[places]


class Groups:
    """Units in groups, each with a share of an epoch's slots.

    Args:
        group: int64 [U], the group of each unit, from 0 on; each group has at least one.
        shares: of the groups; their sum is 1.
    """

    def __init__(self, group: Integers, shares: NDArray[np.float64], *, seed: int) -> None:
        sorted_already = bool((np.diff(group) >= 0).all())
        self._members = None if sorted_already else np.argsort(group, kind="stable")
        self._size = np.bincount(group, minlength=len(shares))
        self._start = np.cumsum(self._size) - self._size
        self._quota = np.maximum(1, np.rint(len(group) * shares).astype(np.int64))
        self._slot_ends = np.cumsum(self._quota)
        self._seed = seed

    @property
    def num_slots(self) -> int:
        """Slots in an epoch."""
        return int(self._slot_ends[-1])

    def draw(self, slots: Integers, epoch: int) -> DrawnUnits:
        """The units in some slots of an epoch."""
        group = np.searchsorted(self._slot_ends, slots, side="right")
        quota, size = self._quota[group], self._size[group]
        turn, place = np.divmod(epoch * quota + slots - (self._slot_ends[group] - quota), size)
        member = self._start[group] + permute(place, size=size, seed=self._seed, epoch=turn, stream=~group)
        units = member if self._members is None else self._members[member]
        return DrawnUnits(units, turn - epoch * quota // size)


class Sampler:
    """What stands at each position of each epoch.

    Args:
        shard_window: shuffle within windows of so many shards; None shuffles globally.
    """

    def __init__(
        self, units: Units, index: SampleIndex, *, groups: Groups | None, shard_window: int | None, seed: int
    ) -> None:
        self.units = units
        self._groups, self._seed, self._shard_window = groups, seed, shard_window
        self._order: Order = GlobalOrder(self.size, seed=seed)
        if shard_window:
            # Units are numbered as their samples are, which stand shard by shard.
            shard_of_unit = index.shard[units.first_sample(np.arange(len(units)))]
            self._shard_start = np.searchsorted(shard_of_unit, np.arange(len(index.shards) + 1))
            if groups is None:
                self._order = self._windowed(np.diff(self._shard_start))
        self._table: tuple[int, DrawnUnits] | None = None
        self._block: tuple[int, int, int, DrawnUnits] | None = None  # epoch, first position, end

    @property
    def size(self) -> int:
        """Units in an epoch."""
        return len(self.units) if self._groups is None else self._groups.num_slots

    def draw(self, positions: Integers, epoch: int) -> DrawnUnits:
        """The units at some positions, of which nearby ones are asked for soon after."""
        first, last = int(positions.min()), int(positions.max())
        if self._block is None or self._block[0] != epoch or not self._block[1] <= first <= last < self._block[2]:
            if last - first >= _BLOCK:
                return self._draw(positions, epoch)
            end = min(self.size, first + _BLOCK)
            self._block = (epoch, first, end, self._draw(np.arange(first, end), epoch))
        _, first, _, drawn = self._block
        return DrawnUnits(drawn.units[positions - first], drawn.repeats[positions - first])

    def _draw(self, positions: Integers, epoch: int) -> DrawnUnits:
        if self._groups is None:
            units = self._order.units(positions, epoch)
            return DrawnUnits(units, np.zeros_like(units))
        if self._shard_window is None:
            return self._groups.draw(self._order.units(positions, epoch), epoch)
        table = self._sorted_table(epoch)
        slots = self._order.units(positions, epoch)
        return DrawnUnits(table.units[slots], table.repeats[slots])

    def samples(self, drawn: DrawnUnits, epoch: int, *, random: bool) -> Integers:
        """The sample of each unit that was drawn."""
        return self.units.samples(drawn, seed=self._seed, epoch=epoch, random=random)

    def stand_in(self, sample: int, attempt: int, epoch: int) -> int:
        """Another sample for a damaged one, by (seed, epoch, sample, attempt)."""
        key = np.array([sample + (attempt << _REPEAT_BITS)])
        unit = keyed_integers(key, seed=self._seed, epoch=epoch, purpose=1) % np.uint64(len(self.units))
        drawn = DrawnUnits(unit.astype(np.int64), np.array([attempt]))
        return int(self.samples(drawn, epoch, random=True)[0])

    def shards_ahead(self, position: int, epoch: int) -> list[list[int]]:
        """The shards of the window that a position is in, and those of the next one; nothing in a global order."""
        if self._shard_window and self._groups is not None:
            self._sorted_table(epoch)
        return self._order.shards_ahead(position, epoch) if isinstance(self._order, WindowedOrder) else []

    def _sorted_table(self, epoch: int) -> DrawnUnits:
        """All that an epoch draws, shard by shard: with groups, windows of shards can't be had without such a table."""
        assert self._groups is not None
        if self._table is None or self._table[0] != epoch:
            drawn = self._groups.draw(np.arange(self.size), epoch)
            by_unit = np.argsort(drawn.units, kind="stable")
            table = DrawnUnits(drawn.units[by_unit], drawn.repeats[by_unit])
            self._order = self._windowed(np.diff(np.searchsorted(table.units, self._shard_start)))
            self._table = (epoch, table)
        return self._table[1]

    def _windowed(self, counts: Integers) -> WindowedOrder:
        assert self._shard_window is not None
        return WindowedOrder(counts, window=self._shard_window, seed=self._seed)


def make_sampler(source: Source, options: LoaderOptions, *, seed: int) -> Sampler:
    """What the options ask for.

    Raises:
        UsageError: classes are to be balanced, but there are samples without a label.
    """
    units = Units(source.index, matching=source.matching, by_video=options.epoch_unit == "video")
    groups = _groups(units, source, balance=options.balance is not None, seed=seed)
    return Sampler(units, source.index, groups=groups, shard_window=source.shard_window, seed=seed)


def _groups(units: Units, source: Source, *, balance: bool, seed: int) -> Groups | None:
    """Weighted data sets, and balanced classes of each or, without weights, of all; None where neither is asked for."""
    weights = source.weights
    if weights is None and not balance:
        return None
    first = units.first_sample(np.arange(len(units)))
    label = source.index.label[first] if balance else np.zeros(len(first), np.int64)
    if (label < 0).any():
        raise UsageError(
            f"balance: {int((label < 0).sum())} samples have no label; leave them out with where='label >= 0'"
        )
    split = source.split_numbers(first) if weights is not None else np.zeros(len(first), np.int64)
    num_labels = int(label.max()) + 1
    present, group = np.unique(split * num_labels + label, return_inverse=True)
    split_of_group = present // num_labels
    share = (
        np.array([1.0] if weights is None else weights)[split_of_group] / np.bincount(split_of_group)[split_of_group]
    )
    return Groups(group, share / share.sum(), seed=seed)
