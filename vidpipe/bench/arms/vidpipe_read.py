"""vidpipe's own reader, without any transform."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.arm import Arm, ArmBatch, ArmSetup, Job
from vidpipe.loader.augment import center_region
from vidpipe.loader.engine import ReadPool, Request
from vidpipe.loader.index import load_index
from vidpipe.loader.order import permute
from vidpipe.loader.reader import ClipReader
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import load_manifest

AHEAD = 2


class VidpipeReadArm(Arm):
    """Random access by the index, straight into the batch's memory."""

    title: ClassVar[str] = "vidpipe"
    about: ClassVar[str] = (
        "vidpipe's reader: clips in a new global order each epoch, read by `workers` threads into the batch, CRC-32 checked."
    )
    jobs: ClassVar[frozenset[Job]] = frozenset({"read"})
    check_crc: ClassVar[bool] = True

    def __init__(self, setup: ArmSetup) -> None:
        super().__init__(setup)
        manifest = load_manifest(setup.folder)
        self._frames = range(manifest.clip.frames)
        self._index = load_index(setup.folder, manifest)
        self._reader = ClipReader(setup.folder, manifest, self._index, check_crc=self.check_crc)

    def batches(self, job: Job) -> Iterator[ArmBatch]:
        """Epoch after epoch, with batches prepared ahead as the loader does."""
        del job
        frame_bytes = self._index.max_frame_bytes
        pool = ReadPool(self._reader, threads=self.setup.workers, frame_bytes=frame_bytes, stand_in=None)
        pending: deque[list[Future[tuple[Request, Frames]]]] = deque()
        requests = self._requests()
        try:
            while True:
                while len(pending) < AHEAD:
                    pending.append(pool.start(next(requests), lambda _place, video, _request: video))
                clips = [future.result() for future in pending.popleft()]
                video: list[NDArray[np.uint8]] = [frames for _, frames in clips]
                yield ArmBatch([str(self._index.key[request.sample]) for request, _ in clips], video)
                del clips, video
        finally:
            pool.close()

    def _requests(self) -> Iterator[list[Request]]:
        size, step, epoch = len(self._index), self.setup.batch_size, 0
        while True:
            for first in range(0, size, step):
                places = np.arange(first, min(first + step, size), dtype=np.int64)
                samples = permute(places, size=size, seed=self.setup.seed, epoch=epoch)
                yield [Request(int(sample), self._frames, center_region(1, 1), is_padding=False) for sample in samples]
            epoch += 1


class VidpipeUncheckedReadArm(VidpipeReadArm):
    """The same without checksums."""

    title: ClassVar[str] = 'vidpipe, check="off"'
    about: ClassVar[str] = "The same without checksums."
    check_crc: ClassVar[bool] = False
