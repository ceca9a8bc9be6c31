"""The DALI backend: clips are read by our threads; DALI crops, resizes, mirrors, recolours, normalises and lays out.

The same pipeline runs on the CPU (`device_id=None`) and on a GPU. DALI is imported nowhere else in the loader. It draws nothing:
all parameters are fed to it, and steps for which there can't be any are left out of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import pipeline_def
from torch import Tensor

from vidpipe.loader.affine import Warp
from vidpipe.loader.augment import Drawn
from vidpipe.loader.engine import Engine, EngineSetup
from vidpipe.loader.pool import Reading, ReadPool
from vidpipe.loader.request import Request, places_of

_SAME_COLORS = np.eye(3, 4, dtype=np.float32)


class DaliEngine(Engine):
    """One DALI pipeline, fed with the clips of one batch at a time."""

    def __init__(self, pool: ReadPool, setup: EngineSetup) -> None:
        self._pool = pool
        self._setup = setup
        on_gpu = setup.device.type == "cuda"
        self._pipeline: Any = _clip_pipeline(
            setup=setup,
            batch_size=setup.max_batch_size,
            num_threads=setup.threads,
            device_id=(setup.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        self._pipeline.build()

    def start(self, requests: Sequence[Request]) -> Reading:
        """Read a batch's clips in the pool's threads."""
        return self._pool.read(requests)

    def finish(self, started: object) -> tuple[list[Request], Tensor]:
        """Wait for the clips and run the pipeline on them.

        On the CPU the result is DALI's own memory, which it doesn't use again; on a GPU a copy, made before this returns.
        """
        assert isinstance(started, Reading)
        results = started.results()
        clips = [
            (np.ascontiguousarray(video[places_of(take, request)]), take.drawn)
            for request, video in results
            for take in request.takes
        ]
        # DALI reads them where they are, so that they have to stay until it has.
        fed = {"video": [video for video, _ in clips], **self._parameters([drawn for _, drawn in clips])}
        for name, values in fed.items():
            self._pipeline.feed_input(name, values)
        (output,) = self._pipeline.run()
        batch = torch.utils.dlpack.from_dlpack(output.as_tensor())
        if self._setup.device.type == "cuda":
            batch = batch.to(self._setup.dtype, copy=True)
            torch.cuda.current_stream(self._setup.device).synchronize()
        return [request for request, _ in results], batch.to(self._setup.dtype)

    def close(self) -> None:
        """Free the pipeline."""
        self._pipeline = None

    def _parameters(self, drawn: list[Drawn]) -> dict[str, list[NDArray[Any]]]:
        """What the pipeline is told of each clip, by the names of its inputs."""
        regions = [d.region for d in drawn]
        result: dict[str, list[NDArray[Any]]] = {
            "top_left": [np.array([r.top, r.left], np.int32) for r in regions],
            "extent": [np.array([r.height, r.width], np.int32) for r in regions],
            "mirror": [np.array(r.flip, np.int32) for r in regions],
        }
        if self._setup.warps:
            whole = Warp(self._setup.size, self._setup.size, np.eye(2, 3))
            warps = [d.warp or whole for d in drawn]
            result["resized"] = [np.array([warp.height, warp.width], np.float32) for warp in warps]
            result["warp"] = [warp.matrix.astype(np.float32) for warp in warps]
        if self._setup.recolors:
            colors = [_SAME_COLORS if d.color is None else d.color for d in drawn]
            result["color"] = [np.ascontiguousarray(color[:, :3]) for color in colors]
            result["color_shift"] = [np.ascontiguousarray(color[:, 3]) for color in colors]
        return result


@pipeline_def  # type: ignore[untyped-decorator]
def _clip_pipeline(*, setup: EngineSetup) -> Any:
    def fed(name: str, layout: str | None = None) -> Any:
        return fn.external_source(name=name, batch=True, no_copy=True, layout=layout)

    video, size = fed("video", "FHWC"), [setup.size, setup.size]
    if setup.device.type == "cuda":
        video = video.gpu()
    # `fn.resize` can take a region itself, but its filter then reads pixels outside of it.
    cut = fn.slice(video, start=fed("top_left"), shape=fed("extent"), axis_names="HW")
    clip = fn.resize(cut, size=fed("resized") if setup.warps else size, interp_type=types.INTERP_LINEAR, antialias=True)
    if setup.warps:
        clip = fn.warp_affine(
            clip, matrix=fed("warp"), size=size, inverse_map=True, interp_type=types.INTERP_LINEAR, dtype=types.FLOAT
        )
    if setup.recolors:
        clip = fn.coord_transform(clip, M=fed("color"), T=fed("color_shift"), dtype=types.FLOAT)
        clip = math.clamp(clip, 0.0, 255.0)
    return fn.crop_mirror_normalize(
        clip,
        dtype=types.FLOAT,
        output_layout="CFHW",
        mean=[255 * value for value in setup.normalization.mean],
        std=[255 * value for value in setup.normalization.std],
        mirror=fed("mirror"),
    )
