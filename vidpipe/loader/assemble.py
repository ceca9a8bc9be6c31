"""What was read and made, with what is known about it, as the consumer's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from vidpipe.loader.batch import Batch, RawBatch, clip_names
from vidpipe.loader.engine import Made
from vidpipe.loader.request import Request, places_of
from vidpipe.loader.source import Source
from vidpipe.loader.transfer import SideStream, to_device
from vidpipe.shards.codecs.base import Frames


def make_batch(source: Source, made: Made) -> Batch:
    """A batch of the model's input; all but the clips is on the host."""
    takes = [(request, take) for request in made.requests for take in request.takes]
    samples = [request.sample for request, _ in takes]
    keys, datasets = source.index.key.take(samples), source.split_numbers(samples)
    return Batch(
        video=made.video,
        label=torch.from_numpy(source.index.label[samples]),
        key=keys,
        clip_key=clip_names(keys, datasets=datasets.tolist(), numbers=[take.number for _, take in takes]),
        video_path=source.index.video.take(samples),
        is_padding=torch.tensor([request.is_padding for request, _ in takes], device="cpu"),
        view=torch.tensor([take.view for _, take in takes], device="cpu"),
        dataset=torch.from_numpy(datasets),
    )


def to_clips_device(
    batch: Batch, ready: torch.cuda.Event | None, stream: SideStream
) -> tuple[Batch, torch.cuda.Event | None]:
    """All of a batch where its clips are, and after which event it is there.

    Is done in the background: at each copy another thread may take Python's lock, for which a consumer would wait.

    Args:
        ready: after which the clips are whole; None for at once.
        stream: of the copies.
    """
    device = batch.video.device
    if device.type == "cpu":
        return batch, ready
    with stream.queue():
        stream.follow(ready)
        batch = replace(
            batch,
            label=to_device(batch.label, device),
            is_padding=to_device(batch.is_padding, device),
            view=to_device(batch.view, device),
            dataset=to_device(batch.dataset, device),
        )
        return batch, stream.mark(None)


def to_consumer(batch: Batch, ready: torch.cuda.Event | None) -> Batch:
    """A batch for work on the current stream, which alone waits for what isn't done yet."""
    if ready is not None:
        stream = torch.cuda.current_stream(batch.video.device)
        stream.wait_event(ready)
        # Or their memory would go back to the streams that made them while this one is at work on it.
        for tensor in (batch.video, batch.label, batch.is_padding, batch.view, batch.dataset):
            tensor.record_stream(stream)
    return batch


def make_raw_batch(source: Source, read: Sequence[tuple[Request, Frames]]) -> RawBatch:
    """A batch of stored clips.

    Args:
        read: the requests that were served, each with its frames, uint8 [T, H, W, 3].
    """
    takes = [(request, take, video) for request, video in read for take in request.takes]
    samples = [request.sample for request, *_ in takes]
    return RawBatch(
        clips=[video[places_of(take, request)] for request, take, video in takes],
        label=source.index.label[samples],
        key=source.index.key.take(samples),
        video_path=source.index.video.take(samples),
        is_padding=np.array([request.is_padding for request, *_ in takes]),
        view=np.array([take.view for _, take, _ in takes]),
        dataset=source.split_numbers(samples),
    )
