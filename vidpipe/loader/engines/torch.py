"""The torch backend: the reference. On the CPU, clips are read and transformed in the same thread, straight into the batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from vidpipe.loader.augmentation.transform import ClipTransform
from vidpipe.loader.engines.engine import Complete, Engine, EngineSetup, Made, T
from vidpipe.loader.reading.buffers import BufferPool
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.tasks import Reading, results_of
from vidpipe.loader.request import Request, frames_at, places_of
from vidpipe.loader.transfer import SideStream
from vidpipe.shards.codecs.base import Frames


@dataclass(frozen=True, slots=True)
class _Started:
    batch: Tensor
    tasks: list[Future[list[Request]]]


class TorchEngine(Engine):
    """All work by the pool's threads, on the CPU."""

    def __init__(self, pool: ReadPool, setup: EngineSetup) -> None:
        self._pool = pool
        self._size, self._dtype = setup.size, setup.dtype
        self._transform = ClipTransform(size=setup.size, normalization=setup.normalization)
        self._batches = BufferPool()

    def start(self, requests: Sequence[Request]) -> _Started:
        """Read and transform a batch's clips in the pool's threads."""
        batch = self._empty(_batch_shape(requests, self._size))
        first = _first_clips(requests)

        def work(place: int, video: Frames, request: Request) -> None:
            for clip, take in enumerate(request.takes, start=first[place]):
                self._transform(torch.from_numpy(video[places_of(take, request)]), take.drawn, out=batch[clip])

        return _Started(batch, self._pool.process(requests, work))

    def finish(self, started: object, complete: Complete[T]) -> Made[T]:
        """Wait for all clips."""
        assert isinstance(started, _Started)
        return Made(complete(results_of(started.tasks), started.batch))

    def close(self) -> None:
        """Nothing to free."""

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        size = torch.Size(shape).numel() * self._dtype.itemsize
        with torch.inference_mode(False):  # the consumer may iterate in inference mode, our threads write outside of it
            return torch.from_numpy(self._batches.take(size)).view(self._dtype).view(shape)


class TorchDeviceEngine(Engine):
    """Frames are copied to the device as they were read, all of a batch at once, while those before are transformed there.

    The threads read into memory that the device can fetch from by itself; it is used again only after that copy has ended.
    """

    def __init__(self, pool: ReadPool, setup: EngineSetup) -> None:
        self._pool = pool
        self._size, self._dtype, self._device = setup.size, setup.dtype, setup.device
        self._transform = ClipTransform(size=setup.size, normalization=setup.normalization, device=setup.device)
        self._stream, self._arrivals = SideStream(setup.device), SideStream(setup.device)

    def start(self, requests: Sequence[Request]) -> Reading[Frames]:
        """Read a batch's frames in the pool's threads."""
        return self._pool.read(requests)

    def finish(self, started: object, complete: Complete[T]) -> Made[T]:
        """Wait for the frames, then queue their copy and what is done to them."""
        assert isinstance(started, Reading)
        results = started.results()
        requests = [request for request, _ in results]
        first = _first_clips(requests)
        with self._arrivals.queue():
            videos = started.on_device(dict(enumerate(read for _, read in results)), self._device)
            whole = self._arrivals.mark(results)
        with self._stream.queue():
            self._stream.follow(whole)
            batch = torch.empty(_batch_shape(requests, self._size), dtype=self._dtype, device=self._device)
            clips = batch.unbind(0)
            for place, request in enumerate(requests):
                for clip, take in enumerate(request.takes, start=first[place]):
                    video = frames_at(videos[place], places_of(take, request))
                    self._transform(video, take.drawn, out=clips[clip])
            return Made(complete(requests, batch), self._stream.mark(videos))

    def close(self) -> None:
        """Wait for what is queued, which reads memory of ours."""
        self._arrivals.close()
        self._stream.close()


def _batch_shape(requests: Sequence[Request], size: int) -> tuple[int, ...]:
    clips = sum(len(request.takes) for request in requests)
    return (clips, 3, len(requests[0].takes[0].frames), size, size)


def _first_clips(requests: Sequence[Request]) -> list[int]:
    """The place of each request's first clip in the batch."""
    places, clips = [], 0
    for request in requests:
        places.append(clips)
        clips += len(request.takes)
    return places
