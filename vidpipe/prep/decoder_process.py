"""What prep's decoding child does: a video's clips, encoded, in a shared buffer, and what is to be known of them."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DatasetError, VideoError
from vidpipe.shards.codecs import Codec, CodecSpec, make_codec
from vidpipe.shards.codecs.base import EncodedClip, Frames, VideoCodec
from vidpipe.shards.manifest import ChannelSums
from vidpipe.video.access import why_folder_is_gone
from vidpipe.video.child import serve
from vidpipe.video.clips import Clip, private_memory
from vidpipe.video.decode import Decoder as DecoderChoice
from vidpipe.video.decode import extract_clips
from vidpipe.video.probe import VideoInfo
from vidpipe.video.spec import ClipSpec

STATISTICS_STEP = 4
STATISTICS_FRAME_STEP = 8  # neighbours are alike
KEPT_BYTES = 256 << 20  # that a shared buffer holds on to from one video to the next


@dataclass(frozen=True, slots=True)
class Job:
    """One video to decode.

    Attributes:
        buffer: which of the two shared buffers takes the payloads.
    """

    path: Path
    key: str
    spec: ClipSpec
    codec: CodecSpec
    decoder: DecoderChoice
    strict: bool
    buffer: int


@dataclass(frozen=True, slots=True)
class StoredMember:
    """One file of a payload, in the shared buffer.

    Attributes:
        extension: what follows the key and a dot.
        pieces: offset and size in bytes of the pieces whose concatenation is its content.
    """

    extension: str
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One encoded clip, or a whole video; its payload lies in the shared buffer.

    Attributes:
        members: the payload's files.
        shape: (T, H, W) of the frames.
        frame_indices: of each frame in the source; None for a whole video.
        times_seconds: of each frame, after the video's first one.
        channels: sums over the sampled pixels.
    """

    members: tuple[StoredMember, ...]
    crc32: tuple[int, ...]
    shape: tuple[int, int, int]
    frame_indices: tuple[int, ...] | None
    times_seconds: tuple[float, ...]
    padded_frames: int
    channels: ChannelSums


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a job: clips and facts about the source, or the reason why there are none."""

    clips: tuple[ClipResult, ...] = ()
    source: dict[str, Any] | None = None
    error: VideoError | None = None


def main(pipe_fd: int, *buffer_fds: int) -> None:
    """Answer jobs until the pipe closes.

    Args:
        pipe_fd: descriptor of the pipe to the parent.
        buffer_fds: descriptors of the shared buffers.
    """
    codecs: dict[CodecSpec, Codec] = {}

    def decode(job: Job) -> Decoded:
        codec = codecs.setdefault(job.codec, make_codec(job.codec))
        try:
            return _decode(job, codec, _SharedMemory(buffer_fds[job.buffer]))
        except VideoError as error:
            if error.stage == "find" and (gone := why_folder_is_gone(job.path)):
                raise DatasetError(
                    f"source: {gone}, but {job.key} was there when this run began; bring it back (is its disk or file server "
                    "there?) and run the same command again: finished shards are kept"
                ) from error
            message = error.message.replace(str(job.path), job.key)
            raise VideoError(error.reason, message, stage=error.stage) from error

    serve(pipe_fd, decode)


def _decode(job: Job, codec: Codec, memory: _SharedMemory) -> Decoded:
    if isinstance(codec, VideoCodec):
        return _encode_whole(job, codec, memory)
    extraction = extract_clips(
        job.path,
        job.spec,
        key=job.key,
        decoder=job.decoder,
        strict=job.strict,
        allocate=memory.allocate if codec.raw_parts else private_memory,
    )
    clips = extraction.clips
    try:
        encoded = [codec.encode(clip.video) for clip in clips]
    except ValueError as error:
        raise VideoError(
            "encode", f"its frames can't be encoded as {job.codec.name}: {error}", stage="encode"
        ) from error
    places = [memory.place(item) for item in encoded]
    return Decoded(
        tuple(_result(clip, place, item.crc32) for clip, item, place in zip(clips, encoded, places, strict=True)),
        _describe(extraction.info, extraction.decoder),
    )


def _encode_whole(job: Job, codec: VideoCodec, memory: _SharedMemory) -> Decoded:
    """Encode the whole video, and decode the result, which proves it and gives its statistics."""
    made = codec.encode_file(job.path, job.spec)
    channels = ChannelSums()
    try:
        for frames in codec.some_frames(made.payload, step=STATISTICS_FRAME_STEP):
            channels = channels.plus(channel_sums(frames))
    except ValueError as error:
        raise VideoError("encode", f"what was encoded can't be decoded: {error}", stage="encode") from error
    result = ClipResult(
        members=memory.place(made.payload),
        crc32=made.payload.crc32,
        shape=made.shape,
        frame_indices=None,
        times_seconds=_rounded(made.times_seconds),
        padded_frames=0,
        channels=channels,
    )
    return Decoded((result,), _describe(made.info, "ffmpeg"))


class _SharedMemory:
    """The shared buffer while it is filled for one job: frames first, where the codec stores them as they are.

    Args:
        descriptor: of the buffer, a file that grows as needed.
    """

    def __init__(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size > KEPT_BYTES:
            os.ftruncate(descriptor, 0)
        self._descriptor = descriptor
        self._frames = np.empty(0, np.uint8)
        self._end = 0

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Its beginning, for frames; what was allocated before is given up."""
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, size)
        flags = mmap.MAP_SHARED | getattr(
            mmap, "MAP_POPULATE", 0
        )  # all pages at once, not one by one when first written
        self._frames = np.frombuffer(mmap.mmap(self._descriptor, size, flags=flags), np.uint8)
        self._end = size
        return self._frames

    def place(self, payload: EncodedClip) -> tuple[StoredMember, ...]:
        """Where a payload's files lie; what doesn't lie in the buffer yet is copied behind what does."""
        return tuple(
            StoredMember(member.extension, tuple(self._place(piece) for piece in member.pieces))
            for member in payload.members
        )

    def _place(self, piece: bytes | memoryview) -> tuple[int, int]:
        view = np.frombuffer(piece, np.uint8)
        offset = view.ctypes.data - self._frames.ctypes.data
        if not 0 <= offset < self._frames.size:
            offset, self._end = self._end, self._end + view.size
            written = 0
            while written < view.size:
                written += os.pwrite(self._descriptor, view[written:].data, offset + written)
        return offset, view.size


def _describe(info: VideoInfo, decoder: str) -> dict[str, Any]:
    """The `source` of a sample's JSON."""
    return {
        "codec": info.codec,
        "decoder": decoder,
        "duration_seconds": info.duration_seconds,
        "fps": info.fps,
        "height": info.height,
        "rotation": info.rotation,
        "sar": info.sar,
        "width": info.width,
    }


def _result(clip: Clip, members: tuple[StoredMember, ...], crc32: tuple[int, ...]) -> ClipResult:
    frames, height, width, _ = clip.video.shape
    return ClipResult(
        members=members,
        crc32=crc32,
        shape=(frames, height, width),
        frame_indices=tuple(int(i) for i in clip.frame_indices),
        times_seconds=_rounded(clip.times_seconds),
        padded_frames=clip.padded_frames,
        channels=channel_sums(clip.video[::STATISTICS_FRAME_STEP]),
    )


def _rounded(times_seconds: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(t), 6) for t in times_seconds)


def channel_sums(video: Frames) -> ChannelSums:
    """Sums over every 4th pixel of both axes."""
    sample = np.ascontiguousarray(video.view("V3")[:, ::STATISTICS_STEP, ::STATISTICS_STEP])  # whole pixels copy faster
    levels = np.arange(256)
    counts = [np.bincount(channel, minlength=256) for channel in sample.view(np.uint8).reshape(-1, 3).T]
    red, green, blue = (int(count @ levels) for count in counts)
    red2, green2, blue2 = (int(count @ levels**2) for count in counts)
    return ChannelSums(pixels=sample.size, sums=(red, green, blue), squares=(red2, green2, blue2))
