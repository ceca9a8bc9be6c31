"""The DALI backend: clips are read by our threads, then cropped, resized, mirrored, normalised and laid out by DALI.

The same pipeline runs on the CPU (`device_id=None`) and on a GPU. DALI is imported nowhere else in the loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from torch import Tensor

from vidpipe.loader.engine import Engine, ReadPool, Request
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import Normalization


@dataclass(frozen=True, slots=True)
class _Started:
    clips: list[Future[tuple[Request, Frames]]]


class DaliEngine(Engine):
    """One DALI pipeline, fed with the clips of one batch at a time.

    Args:
        max_batch_size: of any batch.
        device: `cpu` or a CUDA device.
    """

    def __init__(
        self,
        pool: ReadPool,
        *,
        size: int,
        normalization: Normalization,
        device: torch.device,
        max_batch_size: int,
        threads: int,
    ) -> None:
        self._pool = pool
        on_gpu = device.type == "cuda"
        self._pipeline: Any = _clip_pipeline(
            size=size,
            mean=[255 * value for value in normalization.mean],
            std=[255 * value for value in normalization.std],
            on_gpu=on_gpu,
            batch_size=max_batch_size,
            num_threads=threads,
            device_id=(device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        self._pipeline.build()

    def start(self, requests: Sequence[Request]) -> _Started:
        """Read a batch's clips in the pool's threads."""
        return _Started(self._pool.start(requests, lambda _place, video, _request: video))

    def finish(self, started: object) -> tuple[list[Request], Tensor]:
        """Wait for the clips and run the pipeline on them; the result is DALI's own memory, which it doesn't use again."""
        assert isinstance(started, _Started)
        clips = [future.result() for future in started.clips]
        requests = [request for request, _ in clips]
        regions = [request.region for request in requests]
        feed = self._pipeline.feed_input
        feed("video", [video for _, video in clips])
        feed("top_left", [np.array([r.top, r.left], np.int32) for r in regions])
        feed("extent", [np.array([r.height, r.width], np.int32) for r in regions])
        feed("mirror", [np.array(r.flip, np.int32) for r in regions])
        (output,) = self._pipeline.run()
        return requests, torch.utils.dlpack.from_dlpack(output.as_tensor())

    def close(self) -> None:
        """Free the pipeline."""
        self._pipeline = None


@pipeline_def  # type: ignore[untyped-decorator]
def _clip_pipeline(*, size: int, mean: list[float], std: list[float], on_gpu: bool) -> Any:
    video, top_left, extent, mirror = (
        fn.external_source(name=name, batch=True, no_copy=not on_gpu, layout=layout)
        for name, layout in (("video", "FHWC"), ("top_left", None), ("extent", None), ("mirror", None))
    )
    # `fn.resize` can take a region itself, but its filter then reads pixels outside of it.
    cut = fn.slice(video.gpu() if on_gpu else video, start=top_left, shape=extent, axis_names="HW")
    resized = fn.resize(
        cut,
        size=[size, size],
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    return fn.crop_mirror_normalize(resized, dtype=types.FLOAT, output_layout="CFHW", mean=mean, std=std, mirror=mirror)
