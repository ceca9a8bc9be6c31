"""The torch backend: the reference. Clips are read and transformed in the same thread, straight into the batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from vidpipe.loader.engine import BufferPool, Engine, ReadPool, Request
from vidpipe.loader.transform import normalization_tables, transform_clip
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import Normalization


@dataclass(frozen=True, slots=True)
class _Started:
    batch: Tensor
    clips: list[Future[tuple[Request, None]]]


class TorchEngine(Engine):
    """Crop, resize and normalisation by torch on the CPU; the batch is then moved to the device."""

    def __init__(self, pool: ReadPool, *, size: int, normalization: Normalization, device: torch.device) -> None:
        self._pool = pool
        self._size = size
        self._device = device
        self._scale, self._shift = normalization_tables(normalization)
        self._batches = BufferPool()

    def start(self, requests: Sequence[Request]) -> _Started:
        """Read and transform a batch's clips in the pool's threads."""
        shape = (len(requests), 3, len(requests[0].frames), self._size, self._size)
        batch = self._empty(shape)

        def work(place: int, video: Frames, request: Request) -> None:
            transform_clip(video, request.region, out=batch[place], scale=self._scale, shift=self._shift)

        return _Started(batch, self._pool.start(requests, work))

    def finish(self, started: object) -> tuple[list[Request], Tensor]:
        """Wait for all clips."""
        assert isinstance(started, _Started)
        served = [future.result()[0] for future in started.clips]
        return served, started.batch.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Nothing to free."""

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        if self._device.type == "cuda":
            return torch.empty(shape, dtype=torch.float32, pin_memory=True)
        size = torch.Size(shape).numel() * 4
        with torch.inference_mode(False):  # the consumer may iterate in inference mode, our threads write outside of it
            return torch.from_numpy(self._batches.take(size)).view(torch.float32).view(shape)
