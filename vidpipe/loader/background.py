"""Threads in which batches are made ahead of their use."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from vidpipe.errors import UsageError
from vidpipe.loader.sampling.place import Spot
from vidpipe.loader.transfer import threads_for

Started = TypeVar("Started")
Finished = TypeVar("Finished")
Given = TypeVar("Given")

GIVE_WAY_SECONDS = 0.0002  # in which a consumer gets back to its own work


@dataclass(frozen=True, slots=True)
class _Begun:
    kind: str
    spot: Spot
    batch: Future[Any]


class Background:
    """Two threads: what Python has to do for a batch is done in them while the consumer is busy with one before it.

    What was begun is kept from one iterator to the next, if that one goes on there.

    Args:
        ahead: batches that are made beyond the one in use.
        following: where the batch after the one at a spot is.
        across_epochs: begin the next epoch's first ones while the last of an epoch are in use.
        device: of the batches.
    """

    def __init__(
        self, *, ahead: int, following: Callable[[Spot], Spot], across_epochs: bool, device: torch.device
    ) -> None:
        self._ahead, self._following, self._across_epochs = ahead, following, across_epochs
        self._starter = threads_for(device, 1, name="vidpipe-start")
        self._finisher = threads_for(device, 1, name="vidpipe-batch")
        self._process = os.getpid()
        self._closed = False
        self._begun: deque[_Begun] = deque()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that the threads are in, and no fork of it."""
        return os.getpid() == self._process

    def run(
        self,
        first: Spot,
        num_batches: int,
        *,
        kind: str,
        start: Callable[[Spot], Started],
        finish: Callable[[Started], Finished],
        hand_over: Callable[[Finished], Given],
    ) -> Iterator[Given]:
        """So many batches: each is started and finished ahead, in a thread of its own, and handed over in the caller's.

        Args:
            first: where the first one is.
            kind: tells batches that are made otherwise at the same spot.

        Raises:
            UsageError: this is a fork of the process that the threads are in, or they have been ended.
        """
        if not self.is_here:
            raise UsageError(
                f"loader: was made in process {self._process} and forked into {os.getpid()}, which has none of its threads; "
                "make it in the process that reads it, or send it there pickled"
            )

        def begin(spot: Spot, delay: float) -> Future[Finished]:
            def begun() -> Started:
                time.sleep(delay)
                return start(spot)

            started = self._starter.submit(begun)
            return self._finisher.submit(lambda: finish(started.result()))

        def begin_from(spot: Spot, number: int, *, delay: float = 0.0) -> None:
            while len(self._begun) < number:
                place = self._following(self._begun[-1].spot) if self._begun else spot
                self._begun.append(_Begun(kind, place, begin(place, delay)))

        spot = first
        for left in range(num_batches, 0, -1):
            ahead = self._ahead if self._across_epochs else min(self._ahead, left - 1)
            try:
                while self._begun and (self._begun[0].kind, self._begun[0].spot) != (kind, spot):
                    self._begun.popleft().batch.cancel()
                if not (self._begun and self._begun[0].batch.done()):
                    begin_from(spot, 1 + ahead)
                batch = hand_over(self._begun.popleft().batch.result())
                spot = self._following(spot)
                # Not before, and a little later: the consumer would wait while Python is busy in another thread.
                begin_from(spot, ahead, delay=GIVE_WAY_SECONDS)
            except Exception as error:
                if self._closed:
                    raise UsageError("loader: was closed, so that it gives nothing more; make another one") from error
                raise
            yield batch

    def stop_starting(self) -> None:
        """Start no more batches."""
        self._closed = True
        self._starter.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """End the threads."""
        self.stop_starting()
        self._finisher.shutdown(wait=True, cancel_futures=True)
        self._begun.clear()
