"""The ceiling: what is wanted lies in memory already and is only copied."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.clips import StoredClip, StoredClips
from vidpipe.bench.loader.arms.base import Arm, ArmBatch, ArmSetup, Batches, Job

MAX_SOURCE_BYTES = 128 << 20
AHEAD = 2

Values = NDArray[Any]


class MemcpyArm(Arm):
    """Copies ready-made batches; no loader on this machine can be faster."""

    title: ClassVar[str] = "memcpy (ceiling)"
    about: ClassVar[str] = (
        "Ready-made batches (read: uint8 clips, train: float32 input) are copied from memory to memory by `workers` threads."
    )

    def __init__(self, setup: ArmSetup) -> None:
        super().__init__(setup)
        self._stored = StoredClips(setup.folder, frames=setup.frames)

    def batches(self, job: Job) -> Batches:
        """Batches in the order of the shards; each is copied in as many equal parts as there are threads."""
        clips, source = self._source(job)
        shapes, dtype = [item.shape for item in source], source[0].dtype
        memory = np.concatenate([item.reshape(-1) for item in source])
        del source
        ends = np.cumsum([0] + [math.prod(shape) for shape in shapes])
        # As many targets as batches are in use at once: those that are being filled, the consumer's, and its last one.
        longest = max(ends[min(i + self.setup.batch_size, len(clips))] - ends[i] for i in range(len(clips)))
        targets = deque(np.ones(int(longest), dtype) for _ in range(AHEAD + 2))
        pending: deque[tuple[int, int, Values, list[Future[None]]]] = deque()
        first = 0
        with ThreadPoolExecutor(self.setup.workers) as pool:
            while True:
                while len(pending) < AHEAD:
                    last = min(first + self.setup.batch_size, len(clips))
                    part = memory[ends[first] : ends[last]]
                    target = targets[0][: part.size]
                    targets.rotate(-1)
                    pending.append((first, last, target, self._copy(pool, part, target)))
                    first = last % len(clips)
                begin, end, target, copies = pending.popleft()
                for copy in copies:
                    copy.result()
                cuts = [target[ends[i] - ends[begin] : ends[i + 1] - ends[begin]] for i in range(begin, end)]
                video: Any = [cut.reshape(shape) for cut, shape in zip(cuts, shapes[begin:end], strict=True)]
                yield ArmBatch([clip.key for clip in clips[begin:end]], video)

    def _copy(self, pool: ThreadPoolExecutor, part: Values, target: Values) -> list[Future[None]]:
        parts = np.array_split(part, self.setup.workers)
        targets = np.array_split(target, self.setup.workers)
        return [pool.submit(np.copyto, into, out_of) for into, out_of in zip(targets, parts, strict=True)]

    def _source(self, job: Job) -> tuple[list[StoredClip], list[Values]]:
        """As many clips as there is room for, but at least one batch."""
        size = self.setup.size
        clips: list[StoredClip] = []
        room = MAX_SOURCE_BYTES
        for clip in self._stored.clips:
            room -= self._stored.num_bytes(clip) if job == "read" else 12 * self._stored.num_frames * size**2
            if room < 0 and len(clips) >= self.setup.batch_size:
                break
            clips.append(clip)
        if job == "read":
            return clips, [self._stored.frames(clip) for clip in clips]
        return clips, [self._stored.model_input(clip, size=size).numpy() for clip in clips]
