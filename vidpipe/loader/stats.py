"""What a loader measures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from vidpipe.loader.batch import Batch, RawBatch

AnyBatch = TypeVar("AnyBatch", Batch, RawBatch)


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has measured since it was made.

    Attributes:
        clips: given to the consumer.
        bytes_read: from the shards, as they are stored, with what little lies between.
        wait_seconds: that the consumer spent waiting for a batch.
        busy_seconds: that the consumer spent between batches.
        bad_samples: that are known to be damaged, with all those of a shard that is missing or not what was written.
    """

    clips: int
    bytes_read: int
    wait_seconds: float
    busy_seconds: float
    bad_samples: int

    @property
    def clips_per_second(self) -> float:
        """Clips by the time that the consumer waited and worked."""
        total = self.wait_seconds + self.busy_seconds
        return self.clips / total if total else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes read by the same time."""
        total = self.wait_seconds + self.busy_seconds
        return self.bytes_read / total if total else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time that the consumer waited, 0 to 1."""
        total = self.wait_seconds + self.busy_seconds
        return self.wait_seconds / total if total else 0.0


class Meter:
    """Counts the clips that are given to a consumer, and the seconds that it waits for them and is busy between them."""

    def __init__(self) -> None:
        self.clips = 0
        self.wait_seconds = self.busy_seconds = 0.0

    def timed(self, batches: Iterator[AnyBatch]) -> Iterator[AnyBatch]:
        """The same batches, counted."""
        asked = time.perf_counter()
        for batch in batches:
            given = time.perf_counter()
            self.wait_seconds += given - asked
            self.clips += len(batch)
            yield batch
            asked = time.perf_counter()
            self.busy_seconds += asked - given
