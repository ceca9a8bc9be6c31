"""What was read and made, with what is known about it, as the consumer's batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidpipe.loader.batch import Batch, RawBatch, clip_names
from vidpipe.loader.engines.engine import Made
from vidpipe.loader.reading.source import Source
from vidpipe.loader.request import Request, places_of
from vidpipe.loader.transfer import to_device
from vidpipe.shards.codecs.base import Frames


def make_batch(source: Source, requests: Sequence[Request], video: Tensor) -> Batch:
    """The batch of some clips [B, 3, T, H, W]; all its tensors are on their device.

    On a GPU they are copied on the current stream, as few times as can be: each time another thread may take Python's lock.
    """
    takes = [(request, take) for request in requests for take in request.takes]
    samples = [request.sample for request, _ in takes]
    keys, datasets = source.index.key.take(samples), source.split_numbers(samples)
    marks = [(request.is_padding, take.view) for request, take in takes]
    table = np.concatenate([source.index.label[samples][None], datasets[None], np.array(marks, np.int64).T])
    label, dataset, padding, view = to_device(torch.from_numpy(table), video.device).unbind(0)
    return Batch(
        video=video,
        label=label,
        key=keys,
        clip_key=clip_names(keys, datasets=datasets.tolist(), numbers=[take.number for _, take in takes]),
        video_path=source.index.video.take(samples),
        is_padding=padding.bool(),
        view=view,
        dataset=dataset,
    )


def to_consumer(made: Made[Batch]) -> Batch:
    """A batch for work on the current stream, which alone waits for what isn't done yet."""
    batch = made.value
    if made.ready is not None:
        stream = torch.cuda.current_stream(batch.video.device)
        stream.wait_event(made.ready)
        # Or their memory would go back to the streams that made them while this one is at work on it.
        tensors = (batch.video, batch.label, batch.is_padding, batch.view, batch.dataset)
        for tensor in {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}.values():
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
        label=source.index.label[samples].astype(np.int64),
        key=source.index.key.take(samples),
        video_path=source.index.video.take(samples),
        is_padding=np.array([request.is_padding for request, *_ in takes]),
        view=np.array([take.view for _, take, _ in takes]),
        dataset=source.split_numbers(samples),
    )
