"""Writing checkpoints while training goes on: one at a time, in a thread, errors reported at the next call."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vidpipe.train.checkpoint import snapshot, write_checkpoint


class CheckpointWriter:
    """Writes checkpoints in the background, in the order of the calls.

    `save` copies the state to main memory before it returns; what happens to the tensors later doesn't matter.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, state: Mapping[str, Any], path: Path, *, also: Path | None = None) -> None:
        """Copy the state and start writing it, after the write before it is done.

        Raises:
            CheckpointError: the write before this one failed.
        """
        copied = snapshot(state)
        self.wait()
        self._pending = self._pool.submit(write_checkpoint, copied, path, also=also)

    def wait(self) -> None:
        """Return when all is on disk.

        Raises:
            CheckpointError: it couldn't be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)
