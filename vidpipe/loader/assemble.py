"""What was read and made, with what is known about it, as the consumer's batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidpipe.loader.batch import Batch, RawBatch
from vidpipe.loader.request import Request, places_of
from vidpipe.loader.source import Source
from vidpipe.shards.codecs.base import Frames


def make_batch(source: Source, requests: Sequence[Request], video: torch.Tensor) -> Batch:
    """A batch of the model's input.

    Args:
        requests: that were served, in the order of the clips.
        video: [B, C, T, H, W].
    """
    device = video.device
    if video.is_cuda:  # made on a stream of its own: its memory must not go back while the consumer's is at work
        video.record_stream(torch.cuda.current_stream(device))
    takes = [(request, take) for request in requests for take in request.takes]
    samples = [request.sample for request, _ in takes]
    return Batch(
        video=video,
        label=torch.from_numpy(source.index.label[samples]).to(device),
        key=source.index.key.take(samples),
        video_path=source.index.video.take(samples),
        is_padding=torch.tensor([request.is_padding for request, _ in takes], device=device),
        view=torch.tensor([take.view for _, take in takes], device=device),
        dataset=torch.from_numpy(source.split_numbers(samples)).to(device),
    )


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
