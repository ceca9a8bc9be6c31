"""The DALI backend: clips are read by our threads; DALI crops, resizes, mirrors, recolours, normalises and lays out.

The same pipeline runs on the CPU (`device_id=None`) and on a GPU, to which frames come, copied or decoded there, while those of the
batch before are transformed. DALI is imported nowhere else in the loader but by its decoders. It draws nothing: all parameters are
fed to it, and steps for which there can't be any are left out of the pipeline.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import pipeline_def
from torch import Tensor

from vidpipe.errors import ShardError
from vidpipe.loader.augmentation.affine import Warp
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.engines.dali_decoder import DeviceDecoder
from vidpipe.loader.engines.engine import Complete, Engine, EngineSetup, Made, T
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.stored import Stored
from vidpipe.loader.reading.tasks import Reading
from vidpipe.loader.request import Request, frames_at, places_of
from vidpipe.loader.transfer import SideStream, as_one, threads_for
from vidpipe.shards.codecs.base import Frames

MAX_REFUSED = 3  # batches in a row that the device's decoder refuses and the CPU finds nothing wrong with

_SAME_COLORS = np.eye(3, 4, dtype=np.float32)

_Read = list[tuple[Request, Frames | Stored]]

logger = logging.getLogger("vidpipe.loader")


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Frames on the device: uint8 [T, H, W, 3] of each request that was served, and after which event they are whole there."""

    requests: list[Request]
    videos: list[Tensor]
    whole: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class _Started:
    arrived: Callable[[], _Arrived]  # waits


class DaliEngine(Engine):
    """One DALI pipeline, fed with the clips of one batch at a time, and one before it for each codec that the device decodes.

    Args:
        decodes: names of the codecs whose samples aren't decoded by the pool's threads, but by the device.
        insist: that it does: else the pool's threads take over where its decoder fails again and again.

    Raises:
        ValueError: the device can't decode; see `DeviceDecoder`.
    """

    def __init__(
        self, pool: ReadPool, setup: EngineSetup, decodes: frozenset[str] = frozenset(), *, insist: bool = False
    ) -> None:
        self._pool, self._setup, self.decodes, self._insist = pool, setup, decodes, insist
        self._on_gpu = setup.device.type == "cuda"
        self._stream, self._arrivals = SideStream(setup.device), SideStream(setup.device)
        self._ahead: ThreadPoolExecutor | None = None
        if self._on_gpu or decodes:
            self._ahead = threads_for(setup.device, 1, name="vidpipe-frames")
        self._refused = Counter[str]()
        with self._arrivals.queue():
            self._decoders = {codec: self._decoder(codec) for codec in decodes}
        self._pipeline: Any = _clip_pipeline(
            setup=setup,
            batch_size=setup.max_batch_size,
            num_threads=setup.threads,
            device_id=(setup.device.index or 0) if self._on_gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        self._pipeline.build()

    def start(self, requests: Sequence[Request]) -> _Started:
        """Read a batch's clips in the pool's threads, and bring them to a GPU in one of the engine's."""
        reading = self._pool.read(requests, undecoded=self.decodes)
        if self._ahead is None:
            return _Started(partial(self._arrive, reading, requests))
        return _Started(self._ahead.submit(self._arrive, reading, requests).result)

    def finish(self, started: object, complete: Complete[T]) -> Made[T]:
        """Wait for the frames, and run the pipeline on them.

        On the CPU the result is DALI's own memory, which it doesn't use again; on a GPU a copy, as torch's streams know nothing
        of DALI's memory.
        """
        assert isinstance(started, _Started)
        arrived = started.arrived()
        with self._stream.queue():
            self._stream.follow(arrived.whole)
            clips = [
                (frames_at(video, places_of(take, request)), take.drawn)
                for request, video in zip(arrived.requests, arrived.videos, strict=True)
                for take in request.takes
            ]
            batch = self._transformed([clip for clip, _ in clips], [drawn for _, drawn in clips])
            return Made(complete(arrived.requests, batch), self._stream.mark((arrived.videos, clips)))

    def close(self) -> None:
        """End the thread, and free the pipelines."""
        if self._ahead is not None:
            self._ahead.shutdown(wait=True, cancel_futures=True)
        self._arrivals.close()
        self._stream.close()
        self._pipeline = None
        for decoder in self._decoders.values():
            decoder.close()

    def _decoder(self, codec: str) -> DeviceDecoder:
        return DeviceDecoder(
            codec,
            device=self._setup.device,
            threads=self._setup.threads,
            max_samples=self._setup.max_batch_size,
            max_frames=self._setup.max_batch_size * self._setup.num_frames,
            stream=self._arrivals,
        )

    def _arrive(self, reading: Reading[Frames | Stored], wanted: Sequence[Request]) -> _Arrived:
        """Wait for what is read, and have it on the device."""
        read: _Read = [*reading.results()]
        with self._arrivals.queue():
            videos = self._on_device(reading, read, wanted)
            return _Arrived([request for request, _ in read], videos, self._arrivals.mark((read, videos)))

    def _on_device(self, reading: Reading[Frames | Stored], read: _Read, wanted: Sequence[Request]) -> list[Tensor]:
        """All frames on the device: uint8 [T, H, W, 3] of each sample. Those that the CPU had to decode change in `read`."""
        videos: dict[int, Tensor] = {}
        by_codec: dict[str, dict[int, Stored]] = {}
        for place, (_, sample) in enumerate(read):
            if isinstance(sample, Stored):
                by_codec.setdefault(sample.codec, {})[place] = sample
        for codec, stored in by_codec.items():
            refusal = ""
            if codec in self._decoders:  # else it was given up when these had been read
                try:
                    videos |= zip(stored, self._decoders[codec].decode([*stored.values()]), strict=True)
                    self._refused[codec] = 0
                    continue
                except ValueError as error:
                    refusal = str(error)  # itself would hold on to all of this by its traceback
            asked = [read[place][0].sample for place in stored]
            again = self._pool.read([wanted[place] for place in stored])
            served = again.results()
            copies = again.on_device(dict(enumerate(frames for _, frames in served)), self._setup.device)
            for number, place in enumerate(stored):
                read[place], videos[place] = served[number], copies[number]
            if refusal:
                self._note_refusal(codec, refusal, explained=[request.sample for request, _ in served] != asked)
        left = {
            place: sample
            for place, (_, sample) in enumerate(read)
            if not (place in videos or isinstance(sample, Stored))
        }
        videos |= reading.on_device(left, self._setup.device)
        return [videos[place] for place in range(len(read))]

    def _note_refusal(self, codec: str, reason: str, *, explained: bool) -> None:
        """A batch that the decoder refused was decoded on the CPU, which found a damaged sample, or didn't."""
        self._refused[codec] = 0 if explained else self._refused[codec] + 1
        if explained:
            return
        message = f"decoding {codec} on {self._setup.device} failed where the CPU finds no damage: {reason}"
        if self._refused[codec] < MAX_REFUSED:
            logger.warning("%s; this batch was decoded on the CPU", message)
            return
        message += f"; {MAX_REFUSED} batches in a row"
        if self._insist:
            raise ShardError(f"{message}: set decode='cpu', or 'auto'")
        logger.warning("%s: from now on they are decoded on the CPU", message)
        self._decoders.pop(codec).close()
        self.decodes -= {codec}

    def _transformed(self, clips: list[Tensor], drawn: list[Drawn]) -> Tensor:
        """The model's input of some clips, each uint8 [T, H, W, 3] and contiguous."""
        # DALI reads them where they are, or queues a copy of what is on a GPU, so that they have to stay until it has.
        whole = as_one(clips)  # else each has to be described to it, in Python
        tensors = clips if whole is None else whole
        video = tensors if self._on_gpu else [clip.numpy() for clip in clips] if whole is None else whole.numpy()
        parameters = self._parameters(drawn)
        self._pipeline.feed_input("video", video, cuda_stream=self._stream.cuda)
        for name, values in parameters.items():
            self._pipeline.feed_input(name, values)
        (output,) = self._pipeline.run(self._stream.cuda)
        batch: Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor())
        self._stream.keep(output)  # DALI would use its memory again while it is being copied
        return batch.to(self._setup.dtype, copy=self._on_gpu)

    def _parameters(self, drawn: list[Drawn]) -> dict[str, NDArray[Any]]:
        """What the pipeline is told of each clip, by the names of its inputs."""
        regions = [d.region for d in drawn]
        result: dict[str, NDArray[Any]] = {
            "top_left": np.array([(r.top, r.left) for r in regions], np.int32),
            "extent": np.array([(r.height, r.width) for r in regions], np.int32),
            "mirror": np.array([r.flip for r in regions], np.int32),
        }
        if self._setup.warps:
            whole = Warp(self._setup.size, self._setup.size, np.eye(2, 3))
            warps = [d.warp or whole for d in drawn]
            result["resized"] = np.array([(warp.height, warp.width) for warp in warps], np.float32)
            result["warp"] = np.stack([warp.matrix.astype(np.float32) for warp in warps])
        if self._setup.recolors:
            colors = np.stack([_SAME_COLORS if d.color is None else d.color for d in drawn])
            result["color"] = np.ascontiguousarray(colors[:, :, :3])
            result["color_shift"] = np.ascontiguousarray(colors[:, :, 3])
        return result


@pipeline_def  # type: ignore[untyped-decorator]
def _clip_pipeline(*, setup: EngineSetup) -> Any:
    def fed(name: str) -> Any:
        return fn.external_source(name=name, batch=True, no_copy=True)

    on_gpu, size = setup.device.type == "cuda", [setup.size, setup.size]
    video = fn.external_source(
        name="video", batch=True, layout="FHWC", device="gpu" if on_gpu else "cpu", no_copy=not on_gpu
    )
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
