"""The local executor: one thread and one decoding child for each worker; a shard is the unit of work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from vidpipe.prep.decoder import Decoder
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.shard_job import ShardTask, VideoDone, begin_shard
from vidpipe.video.child import Interrupted


def run_local(
    tasks: Sequence[ShardTask],
    *,
    recipe: PrepRecipe,
    root: Path,
    workers: int,
    on_video: Callable[[VideoDone], None],
) -> int:
    """Make all shards, except those that another process is making or has made.

    Each worker holds two videos' clips at most, in memory that it shares with its child.

    Returns:
        how many were made.

    Raises:
        KeyboardInterrupt: Ctrl-C; the shards in hand are discarded, finished ones stay.
        Exception: the first that a worker met; the others are stopped.
    """
    pool = _Pool(tasks, recipe=recipe, root=root, on_video=on_video)
    with ThreadPoolExecutor(max(1, min(workers, len(tasks))), thread_name_prefix="prep") as executor:
        running: list[Future[int]] = []
        try:
            for _ in range(min(workers, len(tasks))):
                running.append(executor.submit(pool.work))
            # What Ctrl-C interrupts here must not be written in Python: an interrupted Thread.join takes a running thread for a
            # finished one, and an interrupted wait for a future may keep its lock, on which its thread would wait for ever.
            left = len(running)
            while left:
                with suppress(queue.Empty):
                    pool.ended.get(timeout=0.2)  # not for ever: a signal just before it would wait as long
                    left -= 1
        finally:
            pool.stop.set()
            wait(running)
    if pool.failure is not None:
        raise pool.failure
    return sum(worker.result() for worker in running)


class _Pool:
    def __init__(
        self,
        tasks: Sequence[ShardTask],
        *,
        recipe: PrepRecipe,
        root: Path,
        on_video: Callable[[VideoDone], None],
    ) -> None:
        self.stop = threading.Event()
        self.failure: Exception | None = None
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item for each worker that has nothing left to do
        self._recipe = recipe
        self._root = root
        self._on_video = on_video
        self._report_lock = threading.Lock()
        self._tasks: queue.SimpleQueue[ShardTask] = queue.SimpleQueue()
        for task in tasks:
            self._tasks.put(task)

    def work(self) -> int:
        """What one worker does; `ended` gets an item at its end."""
        try:
            return self._work()
        finally:
            self.ended.put(None)

    def _work(self) -> int:
        """Shards until there are none left, the run is stopped, or something fails; how many were made.

        While one shard goes to the disk, the next one's videos are decoded.
        """
        made = 0
        decoder = Decoder(timeout_seconds=self._recipe.timeout_seconds, stop=self.stop)
        written: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="prep-disk") as disk:
            try:
                for task in self._open_tasks():
                    finish = begin_shard(
                        task, recipe=self._recipe, root=self._root, decoder=decoder, on_video=self._report
                    )
                    before, written = written, disk.submit(finish) if finish else None
                    if before is not None:
                        before.result()  # if that failed, what was decoded meanwhile is written all the same
                    made += finish is not None
                if written is not None:
                    written.result()
            except Interrupted:
                pass
            except Exception as error:
                self.failure = self.failure or error
                self.stop.set()
            finally:
                decoder.close()
        return made

    def _open_tasks(self) -> Iterator[ShardTask]:
        with suppress(queue.Empty):
            while not self.stop.is_set():
                yield self._tasks.get_nowait()

    def _report(self, done: VideoDone) -> None:
        if self.stop.is_set():
            raise Interrupted
        with self._report_lock:
            self._on_video(done)
