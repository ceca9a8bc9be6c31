"""Threads in which batches are made ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vidpipe.errors import UsageError

Started = TypeVar("Started")
Finished = TypeVar("Finished")
Given = TypeVar("Given")


class Background:
    """Two threads: what Python has to do for a batch is done in them while the consumer is busy with one before it.

    Args:
        ahead: batches that are made beyond the one in use.
    """

    def __init__(self, *, ahead: int) -> None:
        self._ahead = ahead
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="vidpipe-start")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="vidpipe-batch")
        self._process = os.getpid()
        self._closed = False

    @property
    def is_here(self) -> bool:
        """Whether this is the process that the threads are in, and no fork of it."""
        return os.getpid() == self._process

    def run(
        self,
        num_batches: int,
        *,
        start: Callable[[int], Started],
        finish: Callable[[Started], Finished],
        hand_over: Callable[[Finished], Given],
    ) -> Iterator[Given]:
        """Batches 0, 1, ...: each is started and finished ahead, in a thread of its own, and handed over in the caller's.

        Raises:
            UsageError: this is a fork of the process that the threads are in, or they have been ended.
        """
        if not self.is_here:
            raise UsageError(
                f"loader: was made in process {self._process} and forked into {os.getpid()}, which has none of its threads; "
                "make it in the process that reads it, or send it there pickled"
            )
        begun: deque[Future[Finished]] = deque()
        next_one = 0

        def begin(number: int) -> Future[Finished]:
            started = self._starter.submit(start, number)
            return self._finisher.submit(lambda: finish(started.result()))

        def begin_ahead_of(number: int) -> None:
            nonlocal next_one
            while next_one < min(num_batches, number + 1 + self._ahead):
                begun.append(begin(next_one))
                next_one += 1

        for number in range(num_batches):
            try:
                if not (begun and begun[0].done()):
                    begin_ahead_of(number)
                batch = hand_over(begun.popleft().result())
                begin_ahead_of(number)  # not before: the consumer would wait while Python is busy in another thread
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
