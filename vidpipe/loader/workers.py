"""Who makes a loader's batches: threads and processes that read, an engine, and two threads that keep them busy ahead of use."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress

from vidpipe.errors import UsageError
from vidpipe.loader.background import Background
from vidpipe.loader.engines.backend import make_engine
from vidpipe.loader.engines.engine import EngineSetup
from vidpipe.loader.options import Backend, LoaderOptions
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.process_pool import ReadProcesses
from vidpipe.loader.reading.quarantine import Quarantine
from vidpipe.loader.reading.source import Source
from vidpipe.loader.request import Request
from vidpipe.loader.sampling.place import Spot
from vidpipe.loader.transfer import allocation_for, page_lock_for

logger = logging.getLogger("vidpipe.loader")


class Workers:
    """They start together and end together, and their source with them, also where one of them can't be had.

    Attributes:
        backend: the engine's name.
        readers: what reads, `threads` or `processes`.

    Args:
        source: what is read.
        setup: of the engine; there are as many threads that read as it says.
        stand_in: see `Quarantine`.
        following: see `Background`; so is `across_epochs`.

    Raises:
        MissingExtraError, UsageError: see `make_engine`, `ReadPool` and `ReadProcesses`.
    """

    def __init__(
        self,
        source: Source,
        options: LoaderOptions,
        setup: EngineSetup,
        *,
        backend: Backend,
        stand_in: Callable[[Request, int], Request],
        following: Callable[[Spot], Spot],
        across_epochs: bool,
    ) -> None:
        self._source = source
        max_bad = options.max_bad if options.on_bad == "skip" else None
        self.quarantine = Quarantine(source.index, max_share=max_bad, candidate=stand_in)
        with ExitStack() as started:
            started.callback(source.close)
            processes = _read_processes(source, options, setup)
            if processes is not None:
                started.callback(processes.close)
            self.pool = ReadPool(
                source,
                threads=setup.threads,
                frame_bytes=source.index.frame_bytes,
                quarantine=self.quarantine,
                allocate=allocation_for(setup.device),
                processes=processes,
                batches=1 + options.prefetch_batches,
            )
            started.callback(self.pool.close)
            self.backend, self.engine = make_engine(
                backend, self.pool, setup, decode=options.decode, codecs=source.codecs
            )
            started.callback(self.engine.close)
            if processes is not None and not _are_ready(processes, options):  # they started beside the engine
                self.pool.without_processes()
                processes = None
            self.readers = "threads" if processes is None else "processes"
            self.background = Background(
                ahead=options.prefetch_batches, following=following, across_epochs=across_epochs, device=setup.device
            )
            started.pop_all()
        _at_work.add(self)

    def close(self) -> None:
        """End all threads and processes, and close all files. In a fork, which has none, it does nothing."""
        if not self.background.is_here:
            return
        self.background.stop_starting()  # first: whatever a consumer meets from now on is because of this
        self._source.stop()
        self.pool.close()
        self.background.close()
        self.engine.close()
        self._source.close()


def _read_processes(source: Source, options: LoaderOptions, setup: EngineSetup) -> ReadProcesses | None:
    """Those that are asked for, or do more than threads and can be had; None for threads alone."""
    is_remote = any(split.remote for split in source.splits)
    by_itself = options.readers == "auto" and setup.device.type == "cuda" and not is_remote
    if not (by_itself or options.readers == "processes"):
        return None
    try:
        return ReadProcesses(source.read_plan, number=setup.threads, lock=page_lock_for(setup.device))
    except UsageError as error:
        _do_without(error, options)
        return None


def _are_ready(processes: ReadProcesses, options: LoaderOptions) -> bool:
    try:
        processes.check()
    except UsageError as error:
        _do_without(error, options)
        return False
    return True


def _do_without(error: UsageError, options: LoaderOptions) -> None:
    """Have threads read where processes can't, unless they are asked for."""
    if options.readers == "processes":
        raise error
    logger.warning("%s; threads read instead of processes", error)


_at_work: weakref.WeakSet[Workers] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what nobody closed while it can be: later, modules may be emptied before it, and it (or DALI) would complain of that."""
    for workers in list(_at_work):
        with suppress(Exception):  # of a GPU that has failed; whoever ran into it has been told
            workers.close()
