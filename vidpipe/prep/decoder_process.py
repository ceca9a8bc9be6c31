"""The child that decodes: one video after the other, until its pipe closes or it is killed.

It is a process of its own because decoders hang, leak and crash on damaged input; whoever started it enforces the time
limit with SIGKILL. Payloads go back through memory that both share, everything else through a pipe.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.shards.codecs import Codec, CodecSpec, make_codec
from vidpipe.shards.codecs.base import EncodedClip, Frames, VideoCodec
from vidpipe.shards.manifest import ChannelSums
from vidpipe.video.decode import Clip, extract_clips
from vidpipe.video.decode import Decoder as DecoderChoice
from vidpipe.video.probe import VideoInfo
from vidpipe.video.spec import ClipSpec

STATISTICS_STEP = 4
STATISTICS_FRAME_STEP = 8
READY = "ready"


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
class ClipResult:
    """One encoded clip, or a whole video; its payload lies in the shared buffer.

    Attributes:
        members: extension, offset in the buffer and size in bytes of each of the payload's files.
        shape: (T, H, W) of the frames.
        frame_indices: of each frame in the source; None for a whole video.
        times_seconds: of each frame, after the video's first one.
        channels: sums over the sampled pixels.
    """

    members: tuple[tuple[str, int, int], ...]
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
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: Connection[Decoded | VidpipeError | str, Job] = Connection(pipe_fd)
    pipe.send(READY)
    codecs: dict[CodecSpec, Codec] = {}
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        codec = codecs.setdefault(job.codec, make_codec(job.codec))
        answer: Decoded | VidpipeError
        try:
            answer = _decode(job, codec, buffer_fds[job.buffer])
        except VideoError as error:
            answer = Decoded(
                error=VideoError(error.reason, error.message.replace(str(job.path), job.key), stage=error.stage)
            )
        except VidpipeError as error:
            answer = error
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return


def _decode(job: Job, codec: Codec, buffer_fd: int) -> Decoded:
    if isinstance(codec, VideoCodec):
        return _encode_whole(job, codec, buffer_fd)
    extraction = extract_clips(job.path, job.spec, key=job.key, decoder=job.decoder, strict=job.strict)
    encoded = [codec.encode(clip.video) for clip in extraction.clips]
    places = _store(encoded, buffer_fd)
    clips = zip(extraction.clips, encoded, places, strict=True)
    return Decoded(
        tuple(_result(clip, members, item.crc32) for clip, item, members in clips),
        _describe(extraction.info, extraction.decoder),
    )


def _encode_whole(job: Job, codec: VideoCodec, buffer_fd: int) -> Decoded:
    """Encode the whole video, and decode the result, which proves it and gives its statistics."""
    made = codec.encode_file(job.path, job.spec)
    channels = ChannelSums()
    try:
        for frames in codec.some_frames(made.payload, step=STATISTICS_FRAME_STEP):
            channels = channels.plus(channel_sums(frames))
    except ValueError as error:
        raise VideoError("encode", f"what was encoded can't be decoded: {error}", stage="encode") from error
    (members,) = _store([made.payload], buffer_fd)
    result = ClipResult(
        members=members,
        crc32=made.payload.crc32,
        shape=made.shape,
        frame_indices=None,
        times_seconds=_rounded(made.times_seconds),
        padded_frames=0,
        channels=channels,
    )
    return Decoded((result,), _describe(made.info, "ffmpeg"))


def _store(encoded: Sequence[EncodedClip], buffer_fd: int) -> list[tuple[tuple[str, int, int], ...]]:
    """Put payloads into the shared buffer; where each file of each of them lies."""
    total = sum(item.size for item in encoded)
    if os.fstat(buffer_fd).st_size < total:
        os.ftruncate(buffer_fd, total)
    places, offset = [], 0
    with mmap.mmap(buffer_fd, total) as memory:
        for item in encoded:
            members = []
            for member in item.members:
                members.append((member.extension, offset, member.size))
                for piece in member.pieces:
                    size = memoryview(piece).nbytes
                    memory[offset : offset + size] = piece
                    offset += size
            places.append(tuple(members))
    return places


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


def _result(clip: Clip, members: tuple[tuple[str, int, int], ...], crc32: tuple[int, ...]) -> ClipResult:
    frames, height, width, _ = clip.video.shape
    return ClipResult(
        members=members,
        crc32=crc32,
        shape=(frames, height, width),
        frame_indices=tuple(int(i) for i in clip.frame_indices),
        times_seconds=_rounded(clip.times_seconds),
        padded_frames=clip.padded_frames,
        channels=channel_sums(clip.video),
    )


def _rounded(times_seconds: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(t), 6) for t in times_seconds)


def channel_sums(video: Frames) -> ChannelSums:
    """Sums over every 4th pixel of both axes."""
    sample = video[:, ::STATISTICS_STEP, ::STATISTICS_STEP].reshape(-1, 3).astype(np.int64)
    red, green, blue = (int(value) for value in sample.sum(axis=0))
    red2, green2, blue2 = (int(value) for value in np.einsum("pc,pc->c", sample, sample))
    return ChannelSums(pixels=len(sample), sums=(red, green, blue), squares=(red2, green2, blue2))


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent, whatever the parent dies of."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
