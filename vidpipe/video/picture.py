"""What a decoded picture looks like: its size, how it is to be turned, the shape of its pixels, its colours."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

UNKNOWN = "unknown"
CROP_EXACTLY = 1  # libav's AV_CODEC_FLAG_UNALIGNED, without which it leaves on the left what is convenient

# Names as ffmpeg prints them, of the code points of ITU-T H.273 that occur in video files.
_SPACES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco"}
_SPACES |= {9: "bt2020nc", 10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp"}
_SPACES |= {15: "ipt-c2", 16: "ycgco-re", 17: "ycgco-ro"}
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020"}
_PRIMARIES |= {10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}
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
        color_primaries: for instance `bt709`, `bt2020`.
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
    color_primaries: str


def picture_of(stream: VideoStream, frame: VideoFrame | None) -> Picture:
    """The pictures of `stream`; `frame` is one of them, and can be left out where none may have a display matrix."""
    source = stream.codec_context if frame is None else frame
    angle, mirrored = _turn(frame)
    rotation = angle if angle % 90 == 0 else 0
    ignored = next((a for a in (angle, _tagged_angle(stream)) if a != rotation), 0)
    sar = stream.sample_aspect_ratio
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
        color_primaries=_PRIMARIES.get(int(source.color_primaries), UNKNOWN),
    )


def decode_alone(stream: VideoStream, key_packet: Packet[Any]) -> VideoFrame | None:
    """The frame of a key packet, also where the edit list leaves it out; None when it can't be decoded."""
    import av

    context = stream.codec_context
    if context.is_open:
        context.flush_buffers()
    else:
        context.thread_count = 1
        context.flags |= CROP_EXACTLY
    packet = av.Packet(bytes(key_packet))  # without the flag that has its frame thrown away
    packet.pts, packet.dts, packet.time_base = key_packet.pts, key_packet.dts, key_packet.time_base
    packet.is_keyframe = True
    for data in key_packet.iter_sidedata():
        packet.set_sidedata(data)
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except av.FFmpegError:
        return None
    return frames[0] if frames else None


def _turn(frame: VideoFrame | None) -> tuple[int, bool]:
    """Clockwise degrees below 360 of the frame's display matrix, and whether it flips too (its (a b; c d) does both).

    Degrees are rounded as the ffmpeg program rounds them before it looks for right angles.
    """
    if frame is None:
        return 0, False
    from av.sidedata.sidedata import Type

    side_data: Mapping[Any, Any] = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    widths, heights = math.hypot(a, c), math.hypot(b, d)
    if widths == 0 or heights == 0:
        return 0, False
    return round(math.degrees(math.atan2(b / heights, a / widths))) % 360, a * d - b * c < 0


def _tagged_angle(stream: VideoStream) -> int:
    """Degrees of a `rotate` tag, which older muxers wrote beside the display matrix; alone, players don't follow it."""
    tag = next((value for name, value in stream.metadata.items() if name.lower() == "rotate"), "0")
    try:
        return round(float(tag)) % 360
    except (ValueError, OverflowError):
        return 0
