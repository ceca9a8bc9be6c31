"""What the backends are asked for: a sample to read, and the clips to make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidpipe.loader.augmentation.augment import Drawn


@dataclass(frozen=True, slots=True)
class Take:
    """One clip of a batch.

    Attributes:
        frames: of the stored clip.
        drawn: what is done to them.
        view: as `Batch.view` has it: which of its video's views or, without views, which clip of its read it is; from 0 on.
        number: how many clips of its sample were drawn before it in the epoch; of views as `view`.
    """

    frames: Sequence[int]
    drawn: Drawn
    view: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One read and what is made of it.

    Attributes:
        sample: place in the index.
        frames: of the stored clip, to be read.
        takes: clips that are made of them, all with the same number of frames.
        epoch: that they are of.
        is_padding: whether they only fill up the batch.
    """

    sample: int
    frames: Sequence[int]
    takes: tuple[Take, ...]
    epoch: int
    is_padding: bool


def make_request(sample: int, takes: Sequence[Take], *, epoch: int, is_padding: bool) -> Request:
    """One read of all the frames that some clips of a sample need."""
    frames = takes[0].frames if len(takes) == 1 else sorted(set().union(*(take.frames for take in takes)))
    return Request(sample, frames, tuple(takes), epoch, is_padding)


def places_of(take: Take, request: Request) -> slice | list[int]:
    """Where the frames of one clip are among those that were read; a slice where their distances are all the same."""
    if len(request.takes) == 1:
        return slice(None)
    places = np.searchsorted(request.frames, take.frames)
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step > 0 and (np.diff(places) == step).all():
        return slice(int(places[0]), int(places[-1]) + 1, step)
    return [int(place) for place in places]


def frames_at(video: Tensor, places: slice | list[int]) -> Tensor:
    """Some frames of a contiguous video [T, ...], contiguous; for a list of places to index by, the host would wait for the device."""
    if places == slice(None):
        return video
    if isinstance(places, slice):
        return video[places].contiguous()
    return torch.stack([video[place] for place in places])
