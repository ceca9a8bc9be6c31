"""Damaged samples that are passed over: which there are, what stands in for them, and when there are too many."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np

from vidpipe.errors import BadSampleError, ShardError, StorageError
from vidpipe.loader.reading.index import SampleIndex
from vidpipe.loader.request import Request

MAX_ATTEMPTS = 1000  # enough even where almost all are damaged

logger = logging.getLogger("vidpipe.loader")


class Quarantine:
    """What is known to be damaged in this process. Any number of threads may use it.

    A sample whose own bytes are damaged is out; one whose shard is missing or isn't what was written takes the whole shard out.
    Neither is read again. Each is logged once, as a warning.

    Args:
        max_share: of all samples that may be out, 0 to 1, though one always may; None allows none.
        candidate: a request with as many clips as one whose sample is out, the first, second, ... that could take its place.
    """

    def __init__(
        self, index: SampleIndex, *, max_share: float | None, candidate: Callable[[Request, int], Request]
    ) -> None:
        self._index, self._max_share, self._candidate = index, max_share, candidate
        self._errors: dict[tuple[str, int], ShardError] = {}
        self._num_samples = 0
        self._lock = threading.Lock()

    @property
    def errors(self) -> tuple[ShardError, ...]:
        """One for each damaged sample (`BadSampleError`) and for each shard that is out, in the order of their discovery."""
        return tuple(self._errors.values())

    @property
    def num_samples(self) -> int:
        """Samples that are out, counting all of a shard's."""
        return self._num_samples

    def __contains__(self, sample: int) -> bool:
        known = ("sample", sample) in self._errors or self._shard_is_out(sample)
        return known and self._max_share is not None

    def add(self, sample: int, error: ShardError) -> None:
        """Put out a sample, or its shard.

        Raises:
            ShardError: `error` itself if no sample may be out or if it says nothing about the shard, or that there are too many.
        """
        if isinstance(error, StorageError):
            raise error
        whole = not isinstance(error, BadSampleError)
        shard = int(self._index.shard[sample])
        key = ("shard", shard) if whole else ("sample", sample)
        with self._lock:
            new = key not in self._errors
            if new and whole:
                alone = sum(kind == "sample" and self._index.shard[number] == shard for kind, number in self._errors)
                self._num_samples += int(np.count_nonzero(self._index.shard == shard)) - alone
            elif new and not self._shard_is_out(sample):
                self._num_samples += 1
            self._errors[key] = error
        if self._max_share is None:
            raise error
        _forget_frames(error)
        if new:
            logger.warning("%s: %s", "shard left out" if whole else "sample left out", error)
        self._check_share()

    def stand_in(self, damaged: Request) -> Request:
        """What is asked for in place of a request: the first of its candidates whose sample isn't known to be damaged.

        Raises:
            ShardError: more are known to be damaged than may be, or there is none among the first thousand.
        """
        self._check_share()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            request = self._candidate(damaged, attempt)
            if request.sample not in self:
                return request
        raise ShardError(f"no sound sample found in {MAX_ATTEMPTS} attempts; run `vidpipe verify`")

    def _check_share(self) -> None:
        """Refuse to go on with more damage than is allowed, however often that is tried."""
        assert self._max_share is not None
        out, total = self.num_samples, len(self._index)
        if out > max(1.0, self._max_share * total):
            last = self.errors[-1]
            raise ShardError(
                f"{out} of {total} samples can't be read, more than max_bad ({self._max_share:.0%}) allows; the last one: {last}; "
                "run `vidpipe verify`, then prepare the shards again or raise max_bad"
            ) from last

    def _shard_is_out(self, sample: int) -> bool:
        return ("shard", int(self._index.shard[sample])) in self._errors


def _forget_frames(error: BaseException) -> None:
    """Of an error that is kept: by its traceback, and those of what it came of, it would keep a batch's memory and open files."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
