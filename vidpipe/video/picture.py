"""What a decoded picture looks like: its size, how it is to be turned, the shape of its pixels, its colours."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

UNKNOWN = "unknown"
CROP_EXACTLY = 1  # libav's AV_CODEC_FLAG_UNALIGNED, without which it leaves on the left what is convenient

# Names as ffmpeg prints them, of the code points of ITU-T H.273 that occur in video files.
_SPACES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco"}
_SPACES |= {9: "bt2020nc", 10: "bt2020c", 14: "ictcp"}
_TRANSFERS = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4"}
_TRANSFERS |= {13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67"}
_RANGES = {1: "tv", 2: "pc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stream's pictures, as the first one tells; names are ffmpeg's, or `unknown`.

    Attributes:
        width: of the upright picture, that is after `rotation`, in stored pixels, whatever `sar` says.
        height: likewise.
        rotation: clockwise degrees, 0, 90, 180 or 270, by which the stored picture is turned to be upright.
        mirrored: the display matrix also flips the picture.
        ignored_angle: clockwise degrees that are not followed (no right angle, or a mere tag); else 0.
        sar: shape of a stored pixel, for instance `64:51`; `1:1` when unknown.
        pix_fmt: for instance `yuv420p10le`.
        color_space: matrix, for instance `bt709`.
        color_range: `tv` (limited) or `pc` (full).
        color_transfer: for instance `bt709`, `smpte2084` (PQ), `arib-std-b67` (HLG).
    """

    width: int
    height: int
    rotation: int
    mirrored: bool
    ignored_angle: int
    sar: str
    pix_fmt: str
    color_space: str
    color_range: str
    color_transfer: str


def picture_of(stream: VideoStream, key_packet: Packet[Any] | None) -> Picture:
    """The pictures of `stream`; decodes `key_packet`, which must be the first one given to its decoder."""
    frame = _first_frame(stream, key_packet)
    source = stream.codec_context if frame is None else frame
    angle, mirrored = _turn(frame)
    rotation = angle if angle % 90 == 0 else 0
    ignored = next((a for a in (angle, _tagged_angle(stream)) if a != rotation), 0)
    sar: Fraction | None = stream.sample_aspect_ratio
    width, height = (source.height, source.width) if rotation in {90, 270} else (source.width, source.height)
    return Picture(
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        ignored_angle=ignored,
        sar=f"{sar.numerator}:{sar.denominator}" if sar else "1:1",
        pix_fmt=(stream.codec_context.pix_fmt if frame is None else frame.format.name) or UNKNOWN,
        color_space=_SPACES.get(int(source.colorspace), UNKNOWN),
        color_range=_RANGES.get(int(source.color_range), UNKNOWN),
        color_transfer=_TRANSFERS.get(int(source.color_trc), UNKNOWN),
    )


def _first_frame(stream: VideoStream, key_packet: Packet[Any] | None) -> VideoFrame | None:
    """The display matrix comes with frames, so one is decoded; None when that fails, which decoding will report."""
    if key_packet is None:
        return None
    import av

    context = stream.codec_context
    context.thread_count = 1
    context.flags |= CROP_EXACTLY
    try:
        frames = [*context.decode(key_packet), *context.decode(None)]
    except av.FFmpegError:
        return None
    return frames[0] if frames else None


def _turn(frame: VideoFrame | None) -> tuple[int, bool]:
    """Clockwise degrees below 360 of the frame's display matrix, and whether it flips too (its (a b; c d) does both)."""
    if frame is None:
        return 0, False
    from av.sidedata.sidedata import Type

    entries: Iterable[Any] = frame.side_data
    found = [bytes(entry) for entry in entries if entry.type == Type.DISPLAYMATRIX]
    if not found:
        return 0, False
    a, b, _, c, d = struct.unpack("=5i", found[0][:20])
    return -frame.rotation % 360, a * d - b * c < 0


def _tagged_angle(stream: VideoStream) -> int:
    """Degrees of a `rotate` tag, which older muxers wrote beside the display matrix; alone, players don't follow it."""
    tag = next((value for name, value in stream.metadata.items() if name.lower() == "rotate"), "0")
    try:
        return round(float(tag)) % 360
    except ValueError:
        return 0
