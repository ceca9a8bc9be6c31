"""The ceiling of reading files: the clips' bytes from the page cache to memory that is used again, and nothing else."""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.clips import StoredClip, StoredClips
from vidpipe.bench.loader.arms.base import Arm, ArmBatch, ArmSetup, Batches, Job
from vidpipe.loader.reading.buffers import aligned, aligned_array

AHEAD = 2


class PreadvArm(Arm):
    """What the system call costs by which files are read; a memory-mapped file would crash its reader when it is truncated."""

    title: ClassVar[str] = "preadv (ceiling of files)"
    about: ClassVar[str] = (
        "os.preadv of each clip's bytes by `workers` threads into batches whose memory is used again; no index, no checks."
    )
    jobs: ClassVar[frozenset[Job]] = frozenset({"read"})

    def __init__(self, setup: ArmSetup) -> None:
        super().__init__(setup)
        self._stored = StoredClips(setup.folder, frames=setup.frames)

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """It makes one call for each clip."""
        stored = StoredClips(setup.folder, frames=setup.frames)
        if any(len(runs := stored.ranges(clip)) > 1 for clip in stored.clips):
            return f"the frames that are taken of a clip lie apart, in {len(runs)} places"
        return ""

    def batches(self, job: Job) -> Batches:
        """In the order of the shards."""
        del job
        clips, size = itertools.cycle(self._stored.clips), self.setup.batch_size
        longest = max(self._stored.num_bytes(clip) for clip in self._stored.clips)
        # As many as are in use at once: those that are being filled, the consumer's, and its last one.
        step = aligned(longest)
        targets = deque(aligned_array(size * step).reshape(size, step) for _ in range(AHEAD + 2))
        pending: deque[tuple[list[StoredClip], list[Future[NDArray[np.uint8]]]]] = deque()
        with ExitStack() as stack:
            files = {
                clip.shard: stack.enter_context((self.setup.folder / clip.shard).open("rb"))
                for clip in self._stored.clips
            }
            pool = stack.enter_context(ThreadPoolExecutor(self.setup.workers))
            while True:
                while len(pending) < AHEAD:
                    batch = list(itertools.islice(clips, size))
                    targets.rotate(-1)
                    reads = [
                        pool.submit(self._read, files[clip.shard].fileno(), clip, target)
                        for clip, target in zip(batch, targets[0], strict=True)
                    ]
                    pending.append((batch, reads))
                batch, reads = pending.popleft()
                yield ArmBatch([clip.key for clip in batch], [read.result() for read in reads])

    def _read(self, descriptor: int, clip: StoredClip, target: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ((offset, size),) = self._stored.ranges(clip)
        if os.preadv(descriptor, [target[:size].data], offset) != size:
            raise ValueError(f"{clip.shard}: ends within sample {clip.key}")
        return target[:size].reshape(-1, clip.height, clip.width, 3)
