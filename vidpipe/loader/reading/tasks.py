"""What threads are reading for a batch, and waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.loader.request import Request
from vidpipe.loader.transfer import videos_in
from vidpipe.shards.codecs.base import Frames

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Reading(Generic[R]):
    """A batch that is being read.

    Attributes:
        buffer: flat uint8, into which it is read; what stands in for a damaged sample and is larger has memory of its own.
        starts: where each request's frames begin in it.
    """

    buffer: NDArray[np.uint8]
    starts: list[int]
    tasks: list[Future[list[tuple[Request, R]]]]

    def results(self) -> list[tuple[Request, R]]:
        """Wait; for each request the one that was served in the end, and what was read: frames are uint8 [T, H, W, 3]."""
        return results_of(self.tasks)

    def on_device(self, videos: Mapping[int, Frames], device: torch.device) -> dict[int, Tensor]:
        """Queue the copy of what was read to a device, all of it at once, on the current stream.

        Args:
            videos: some of the results' frames, by their places; have to be kept until the copy has ended.

        Returns:
            uint8 [T, H, W, 3] of each.
        """
        inside = [place for place, video in videos.items() if np.may_share_memory(video, self.buffer)]
        copies = {
            place: torch.from_numpy(video).to(device, non_blocking=True)
            for place, video in videos.items()
            if place not in inside
        }
        if inside:
            begin, end = min(self.starts[p] for p in inside), max(self.starts[p] + videos[p].nbytes for p in inside)
            whole = torch.from_numpy(self.buffer[begin:end]).to(device, non_blocking=True)
            starts, shapes = [self.starts[p] - begin for p in inside], [videos[p].shape for p in inside]
            copies |= zip(inside, videos_in(whole, starts, shapes), strict=True)
        return copies


def results_of(tasks: Sequence[Future[list[R]]]) -> list[R]:
    """Wait until all have ended, or one has failed, whose error is raised.

    The thread wakes up once. If it did for each of them, it would have to get hold of Python's lock as often.
    """
    ended: list[Future[list[R]]] = []
    enough, number = threading.Event(), len(tasks)

    def end(task: Future[list[R]]) -> None:
        ended.append(task)
        if len(ended) == number or task.cancelled() or task.exception() is not None:
            enough.set()

    for task in tasks:
        task.add_done_callback(end)
    if tasks:
        enough.wait()
    failed = [task for task in ended if task.cancelled() or task.exception() is not None]
    ended.clear()  # tasks hold `end`: in a circle, what they have read would be kept until garbage is collected
    return [item for task in failed or tasks for item in task.result()]
