"""Decoding on the device by DALI: JPEG by nvJPEG, H.264 by NVDEC, from memory and only the frames that are wanted.

The same code runs on the CPU with DALI's decoders there (JPEG by libjpeg-turbo; VP9, but no H.264), by which it is tested.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from torch import Tensor

from vidpipe.loader.reading.stored import Stored, as_stored
from vidpipe.loader.transfer import SideStream, videos_in
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec, Frames

# Of the pictures, for nvJPEG's own hardware where there is any. DALI's default of 0.65 would leave it to a picture's place in its batch
# whether the hardware decodes it or CUDA, which round otherwise: clips would depend on the batch size, and on where a run goes on.
HARDWARE_SHARE = 1.0
LEVELS = 3  # of 255 by which a flat area may differ from what the CPU decodes
_TRIED_FRAMES = (0, 3, 3, 11, 12, 23)
_TRIED_PATCHES = ((4, 4), (3, 5))  # rows and columns of two clips: batches mostly have several sizes
_PATCH = 32
_trials = itertools.count()


class DeviceDecoder:
    """Decodes one codec's samples, a batch at a time; the frames of `jpeg` joined to filmstrips.

    NVDEC's frames come in the colours that DALI takes them to have, in 2.x those of BT.601, while prep writes BT.709. So the
    first things to be decoded are clips of known colours: the change that makes the CPU's of them is then made to all others.
    They also tell whether anything is decoded at all: where nvImageCodec can't have nvJPEG's hardware, as when the GPU's memory
    is full, it says so on stderr only, and the pictures may be others.

    Args:
        codec: `jpeg` or `mp4`.
        max_samples: of a batch.
        max_frames: of all its samples together.
        stream: on which the frames are wanted.

    Raises:
        ValueError: the device can't decode those clips, or gives other pictures; the message is DALI's, or says how far off.
    """

    def __init__(
        self,
        codec: str,
        *,
        device: torch.device,
        threads: int,
        max_samples: int,
        max_frames: int,
        stream: SideStream,
    ) -> None:
        self._codec, self._stream = codec, stream
        self._define = _PIPELINES[codec]
        self._tried = max(len(_TRIED_PATCHES), max_samples if codec == "jpeg" else 0)
        self._batch_size = max(max_frames if codec == "jpeg" else max_samples, self._tried)
        self._settings = {
            "decoder": "mixed" if device.type == "cuda" else "cpu",
            "batch_size": self._batch_size,
            "num_threads": threads,
            "device_id": (device.index or 0) if device.type == "cuda" else None,
            "prefetch_queue_depth": 1,
            "exec_dynamic": True,
        }
        self._device = device
        self._pipeline: Any = None
        self._color: Tensor | None = None
        self._build()

    def decode(self, samples: Sequence[Stored]) -> list[Tensor]:
        """Frames of each sample, uint8 [T, H, W, 3] on the device, in memory that isn't used again.

        Raises:
            ValueError: one of them can't be decoded, or to another size; DALI may not say which. The next batch can.
        """
        if self._pipeline is None:
            self._build()
        if self._codec == "mp4":
            encoded = [part for sample in samples for part in sample.parts]
            levels = self._decoded(encoded, [sample.shape for sample in samples], [sample.frames for sample in samples])
            return videos_in(levels, _starts(samples), [sample.shape for sample in samples])
        strips = [
            (strip, (strip.frames * strip.pitch, *sample.shape[2:])) for sample in samples for strip in sample.strips
        ]
        levels = self._decoded([strip.content for strip, _ in strips], [shape for _, shape in strips])
        if all(strip.pitch == sample.shape[1] for sample in samples for strip in sample.strips):
            return videos_in(levels, _starts(samples), [sample.shape for sample in samples])
        pieces = iter(torch.split(levels, [math.prod(shape) for _, shape in strips]))
        return [
            torch.cat(
                [
                    next(pieces).view(strip.frames, strip.pitch, *sample.shape[2:])[:, : sample.shape[1]]
                    for strip in sample.strips
                ]
            )
            for sample in samples
        ]

    def _decoded(
        self,
        encoded: Sequence[memoryview],
        shapes: Sequence[tuple[int, ...]],
        frames: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """What DALI makes of some files, one behind the other: uint8, flat.

        Args:
            shapes: that are expected.
            frames: of each video.
        """
        try:
            self._pipeline.feed_input("encoded", [np.frombuffer(file, np.uint8) for file in encoded])
            if frames is not None:
                self._pipeline.feed_input("frames", [np.array(numbers, np.int32) for numbers in frames])
            (output,) = self._pipeline.run(self._stream.cuda)
            for shape, expected in zip(output.shape(), shapes, strict=True):
                if tuple(shape) != expected:
                    raise ValueError(f"one decodes to {list(shape)}, expected {list(expected)}")
            size = sum(math.prod(shape) for shape in shapes)
            # A pipeline's outputs lie one behind the other, so that a sample's pictures are a clip without being moved.
            levels: Tensor = torch.utils.dlpack.from_dlpack(output.as_reshaped_tensor([size]))
        except RuntimeError as error:
            self._pipeline = None  # DALI calls one that has failed no longer valid
            raise ValueError(_reason(error)) from error
        self._stream.keep(output)  # DALI would use its memory again while it is being read
        return levels if self._color is None else _recolored(levels, self._color)

    def close(self) -> None:
        """Free the decoder."""
        self._pipeline = None

    def _build(self) -> None:
        """Make a pipeline, and try it."""
        pipeline = self._define(**self._settings)
        try:
            pipeline.build()
            if self._codec == "jpeg":
                # How many pictures of a batch nvJPEG's hardware may take at most, nvImageCodec settles with the first one.
                pipeline.feed_input("encoded", [_small_jpeg()] * self._batch_size)
                pipeline.run(self._stream.cuda)
        except RuntimeError as error:
            raise ValueError(_reason(error)) from error
        self._pipeline, self._color = pipeline, None
        try:
            self._color = self._color_change()
        except ValueError:
            self._pipeline = None
            raise

    def _color_change(self) -> Tensor | None:
        """What makes the CPU's colours of this decoder's, float32 [4, 3] with the shift last; None where they agree."""
        # What memory still holds of an earlier trial mustn't pass for this one's; but a change of colours has to be the same each time.
        seed = next(_trials) if self._codec == "jpeg" else 0
        clips = [_tried_clip(self._codec, _patches(rows, columns, seed)) for rows, columns in _TRIED_PATCHES]
        colors = [(stored, _patch_colors(expected)) for stored, expected in clips]
        tried = list(itertools.islice(itertools.cycle(colors), self._tried))
        got = self.decode([stored for stored, _ in tried])
        ours = np.concatenate([expected for _, expected in tried])
        theirs = np.concatenate([_patch_colors(frames.cpu().numpy()) for frames in got])
        if np.abs(theirs - ours).max() <= LEVELS:
            return None
        table = np.column_stack([theirs, np.ones(len(theirs))])
        change, *_ = np.linalg.lstsq(table, ours, rcond=None)
        left = np.abs(table @ change - ours).max()
        if left > LEVELS:
            raise ValueError(f"its pictures differ from the CPU's by up to {left:.0f} levels of 255")
        return torch.from_numpy(change.astype(np.float32)).to(self._device)


@pipeline_def  # type: ignore[untyped-decorator]
def _jpeg_pipeline(*, decoder: str) -> Any:
    encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
    # Chroma is interpolated as on the CPU; threads are left to the system, as several processes may share the cores.
    return fn.decoders.image(
        encoded,
        device=decoder,
        output_type=types.RGB,
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,
        hw_decoder_load=HARDWARE_SHARE,
        affine=False,
    )


@pipeline_def  # type: ignore[untyped-decorator]
def _mp4_pipeline(*, decoder: str) -> Any:
    encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
    frames = fn.external_source(name="frames", batch=True, no_copy=True)
    # By default a frame that isn't there would come as a black one.
    return fn.decoders.video(encoded, device=decoder, frames=frames, pad_mode="none", affine=False)


_PIPELINES: dict[str, Callable[..., Any]] = {"jpeg": _jpeg_pipeline, "mp4": _mp4_pipeline}


@functools.cache  # and so never freed while a device still reads it
def _small_jpeg() -> NDArray[np.uint8]:
    black = np.zeros((1, _PATCH, _PATCH, 3), np.uint8)
    return np.frombuffer(make_codec(CodecSpec(name="jpeg")).encode(black).members[0].pieces[0], np.uint8)


def _starts(samples: Sequence[Stored]) -> list[int]:
    """Where each sample's frames begin if they lie one behind the other."""
    return [*itertools.accumulate((math.prod(sample.shape) for sample in samples[:-1]), initial=0)]


def _recolored(levels: Tensor, change: Tensor) -> Tensor:
    """Pixels in other colours, all of a batch at once; by no matrix product, whose last bits depend on how many there are."""
    colors, mixed = levels.view(-1, 3, 1), change[3]
    for channel in range(3):
        mixed = torch.addcmul(mixed, colors[:, channel], change[channel])
    return mixed.round_().clamp_(0, 255).to(torch.uint8).view(levels.shape)


def _tried_clip(codec_name: str, video: Frames) -> tuple[Stored, Frames]:
    """What is stored of some of a clip's frames, and what the CPU makes of it."""
    codec = make_codec(CodecSpec(name=codec_name))
    files = [b"".join(member.pieces) for member in codec.encode(video).members]
    read = codec.parts(video.shape[:3], [len(file) for file in files], _TRIED_FRAMES)
    expected = np.empty((len(_TRIED_FRAMES), *video.shape[1:]), np.uint8)
    parts = [memoryview(files[part.member]) for part in read]
    codec.decode_parts(parts, _TRIED_FRAMES, expected)
    shape = (len(expected), *video.shape[1:3], 3)
    return as_stored(codec_name, parts, _TRIED_FRAMES, shape), expected


def _patches(rows: int, columns: int, seed: int) -> Frames:
    """24 frames of flat patches in muted colours, none like another."""
    colors = np.random.default_rng(seed).integers(64, 192, (24, rows, columns, 3), dtype=np.uint8)
    return colors.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)


def _patch_colors(video: Frames) -> NDArray[np.float64]:
    """Mean colours of the patches' middles, [patches, 3]."""
    frames, height, width, _ = video.shape
    patches = video.reshape(frames, height // _PATCH, _PATCH, width // _PATCH, _PATCH, 3)
    middle = slice(_PATCH // 4, 3 * _PATCH // 4)
    colors: NDArray[np.float64] = patches[:, :, middle, :, middle].mean(axis=(2, 4)).reshape(-1, 3)
    return colors


def _reason(error: RuntimeError) -> str:
    """What DALI says between the traceback of the pipeline's definition and its farewell, in one line."""
    said = str(error).rpartition("encountered:")[2].partition("Current pipeline object is no longer valid")[0]
    return " ".join((said or str(error)).split())[:300]
