"""One pass over a container's packets with PyAV: what they tell of the frames, and what the demuxer complains of."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidpipe.errors import VideoError
from vidpipe.video.packets import TOLERANCE, H264Restarts, Packet, is_hidden_vp8, mpeg4_pictures
from vidpipe.video.picture import Picture, decode_alone, picture_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AvPacket
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


@contextmanager
def captured_complaints() -> Iterator[list[tuple[int, str, str]]]:
    """(level, name, text) of what PyAV's libraries say at level error in this thread, instead of printing it."""
    import av.logging

    with _LEVEL.errors(), av.logging.Capture() as logs:
        yield logs


def open_container(name: str) -> InputContainer:
    """The file `name`, which must be absolute; whatever it names itself is not opened, and metadata may be no UTF-8."""
    import av

    # Since release 19 it reads such metadata by itself, and knows no option for it.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    container: InputContainer = av.open(name, options={"protocol_whitelist": "file"}, **lenient)
    return container


class _Level:
    """PyAV's log level, of which a process has one; the last thread that listens puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._before: int | None = None

    @contextmanager
    def errors(self) -> Iterator[None]:
        import av.logging

        with self._lock:
            if self._listeners == 0:
                self._before = av.logging.get_level()
                av.logging.set_level(av.logging.ERROR)
                av.logging.set_skip_repeated(False)  # else what is captured depends on the file before
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners -= 1
                if self._listeners == 0:
                    av.logging.set_level(self._before)


_LEVEL = _Level()


@dataclass(slots=True)
class Demuxed:
    """What a pass over the container's packets gives.

    Attributes:
        packets: those of the video stream.
        picture: what the pictures look like.
        end_ticks: last end of the packets of each stream that was read, by the stream's index.
    """

    packets: list[Packet]
    picture: Picture
    end_ticks: dict[int, int]


def read_packets(container: InputContainer, stream: VideoStream, *, can_turn: bool) -> Demuxed:
    """All packets of the stream, or of every stream where only the container's duration tells how long it should be.

    Args:
        can_turn: there may be a display matrix, which comes with frames: the first key frame is decoded to see it.

    Raises:
        VideoError: stage `probe`, reason `damaged`: the container breaks off, or no key frame tells of the display matrix.
    """
    import av

    packets: list[Packet] = []
    end_ticks: dict[int, int] = {}
    frame: VideoFrame | None = None
    is_own_length_known = stream.duration or stream.frames or _tagged_seconds(container, stream)
    streams = [stream] if is_own_length_known else list(container.streams)
    codec = stream.codec_context.codec.canonical_name
    restarts = H264Restarts(stream.codec_context.extradata or b"") if codec == "h264" else None
    try:
        for packet in _demuxed(container, streams):
            if packet.size == 0:
                continue
            if packet.stream_index == stream.index:
                packets.append(_packet(packet, codec, restarts))
                if can_turn and frame is None and packet.is_keyframe:
                    frame = decode_alone(stream, packet)
            elif packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                end_ticks[packet.stream_index] = max(end_ticks.get(packet.stream_index, 0), end)
    except av.FFmpegError as error:
        message = f"the container breaks off after {len(packets)} frames: {error.strerror}"
        raise VideoError("damaged", message, stage="probe") from error
    if can_turn and frame is None and packets:
        message = "no key frame can be decoded, so it can't be told how the pictures are to be turned"
        raise VideoError("damaged", message, stage="probe")
    return Demuxed(packets, picture_of(stream, frame), end_ticks)


def _demuxed(container: InputContainer, streams: Sequence[Stream]) -> Iterator[AvPacket[Any]]:
    """What PyAV's `demux` gives, which stops at the first packet of a stream that shows up behind the beginning of the file."""
    while True:
        try:
            yield from container.demux(*streams)
        except IndexError:  # that packet is none of these streams'; those after it are still to come
            continue
        return


def _packet(packet: AvPacket[Any], codec: str, restarts: H264Restarts | None) -> Packet:
    return Packet(
        packet.pts,
        packet.duration or 0,
        packet.is_keyframe,
        packet.is_discard,
        packet.is_corrupt,
        codec == "vp8" and is_hidden_vp8(bytes(packet)),
        mpeg4_pictures(bytes(packet)) if codec == "mpeg4" else 1,
        packet.dts != packet.pts,
        restarts is not None and restarts.is_restart(bytes(packet), reconfigures=packet.has_sidedata("new_extradata")),
    )


def promised_ticks(container: InputContainer, stream: VideoStream, found: Demuxed) -> float | None:
    """How long the container says that the stream is, in its time base; None when it says nothing about this one."""
    if container.format.name == "avi":
        return max(stream.duration or 0, stream.frames)  # both are ticks
    if stream.duration:
        return stream.duration
    seconds = _tagged_seconds(container, stream)
    if seconds is None and container.duration:
        seconds = container.duration / 1e6
        ends = [end * float(container.streams[i].time_base or 0) for i, end in found.end_ticks.items()]
        if ends and max(ends) >= seconds * (1 - TOLERANCE):
            return None  # another stream lasts that long, so this one may end before it
    return seconds / float(stream.time_base) if seconds and stream.time_base else None


def _tagged_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Duration of the stream from Matroska's statistics tags, unless it exceeds the container's.

    Then they are those of a longer file from which this one was cut: ffmpeg hands on what other muxers wrote
    (`DURATION-eng`), and writes its own `DURATION` beside them.
    """
    tags = {name.upper(): value for name, value in stream.metadata.items()}
    first = next((value for name, value in tags.items() if name.startswith("DURATION")), "")
    match = _DURATION.fullmatch(tags.get("DURATION", first).strip())
    if not match:
        return None
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    is_stale = container.duration and seconds > container.duration / 1e6 * (1 + TOLERANCE)
    return None if is_stale else seconds


def ticks_per_frame(stream: VideoStream) -> int:
    """How long a frame lasts in units of the time base, by the stated rate; 1 when none is stated."""
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * stream.time_base))) if rate and stream.time_base else 1
