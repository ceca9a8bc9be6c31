"""Frames counted from a container's packets, without decoding: their times and whether the count is sure. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Containers in which every packet is a frame with its time, and whose start can be sought exactly.
INDEXED_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})
_VOP_START = b"\x00\x00\x01\xb6"
_TINY_VOP_BYTES = 8
_START_CODE = b"\x00\x00\x01"
_IDR, _SPS, _PPS = 5, 7, 8  # types of NAL units of H.264
_MAX_REORDERED = 20  # frames that a decoder may hold back: 16 by H.264 and HEVC, and some to spare
TOLERANCE = 0.02


class Packet(NamedTuple):
    """One packet of a video stream.

    Attributes:
        ticks: presentation time in units of the stream's time base, or None.
        duration_ticks: how long it is shown; 0 when unknown.
        is_key: decoding can start here.
        is_discard: outside the container's edit list: decoded, never shown.
        is_corrupt: the demuxer knows that bytes are missing.
        hidden: decoded, never shown, as the codec says (VP8's alternate references).
        num_pictures: pictures in it that are coded; 1, but for MPEG-4's packed bitstreams and skipped frames.
        is_reordered: its decoding time is not its presentation time.
        is_restart: nothing behind it, in the order of the file, needs what is before it or is shown before it.
    """

    ticks: int | None
    duration_ticks: int
    is_key: bool
    is_discard: bool = False
    is_corrupt: bool = False
    hidden: bool = False
    num_pictures: int = 1
    is_reordered: bool = False
    is_restart: bool = False


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames that a stream shows.

    Attributes:
        ticks: int64 [N], presentation times in units of the time base, ascending.
        packets: int64 [N], numbers, in the order of the file, of the packets that hold them.
        restarts: numbers of the packets at which decoding can begin as if nothing had been before; 0 is one.
        packets_before: int64 [N], packets in the order of the file that must be decoded to show the frames up to this one.
        last_duration_ticks: how long the last frame is shown.
        num_unshown: packets that are flagged for discard or hidden.
        num_skipped: packets that say that the frame before is to stay (MPEG-4); they have a time all the same.
        num_corrupt: packets with missing bytes.
        num_leading: frames before the first key frame, in the order of the file or of presentation: decoders may lack what
            they refer to.
        is_reordered: some frames are decoded in another order than they are shown.
        doubt: why the count may differ from what a decoder gives; empty when it can't.
    """

    ticks: NDArray[np.int64]
    packets: NDArray[np.int64]
    restarts: tuple[int, ...]
    packets_before: NDArray[np.int64]
    last_duration_ticks: int
    num_unshown: int
    num_skipped: int
    num_corrupt: int
    num_leading: int
    is_reordered: bool
    doubt: str

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return len(self.ticks)

    @property
    def shown_ticks(self) -> int:
        """From the first frame's start to the last one's end."""
        return int(self.ticks[-1] - self.ticks[0]) + self.last_duration_ticks if len(self.ticks) else 0


def index_frames(packets: Sequence[Packet], *, container: str, ticks_per_frame: int = 1) -> FrameIndex:
    """The frames of a stream from its packets in the order of the file.

    Args:
        container: ffmpeg's comma-separated names of the demuxer.
        ticks_per_frame: for streams whose packets have no times at all.
    """
    num_unshown = sum(p.is_discard or p.hidden for p in packets)
    num_skipped = max(0, len(packets) - sum(p.num_pictures for p in packets))
    doubt = _doubt(packets, container, num_skipped)
    if all(p.ticks is None for p in packets):
        packets = [p._replace(ticks=i * ticks_per_frame) for i, p in enumerate(packets)]
    timed = sorted(
        (p.ticks, place, p.duration_ticks)
        for place, p in enumerate(packets)
        if p.ticks is not None and not p.is_discard and not p.hidden
    )
    ticks, places, durations = np.array(timed, dtype=np.int64).reshape(-1, 3).T
    duration = int(durations[-1]) if len(ticks) else 0
    if (duration <= 0 or container == "avi") and len(ticks) > 1:  # AVI's say 1 tick, however long that is
        duration = int(np.median(np.diff(ticks)))
    packets_before = np.maximum.accumulate(places) + 1
    if container == "avi":  # its packets have decoding times only, so a frame may need some that follow
        packets_before = np.minimum(packets_before + _MAX_REORDERED, len(packets))
    return FrameIndex(
        ticks=ticks,
        packets=places,
        restarts=(0, *(place for place, p in enumerate(packets) if p.is_restart and place)),
        packets_before=packets_before,
        last_duration_ticks=duration,
        num_unshown=num_unshown,
        num_skipped=num_skipped,
        num_corrupt=sum(p.is_corrupt for p in packets),
        num_leading=_num_leading(packets, ticks, places),
        is_reordered=any(p.is_reordered for p in packets),
        doubt=doubt,
    )


def _num_leading(packets: Sequence[Packet], ticks: NDArray[np.int64], places: NDArray[np.int64]) -> int:
    """How many of the frames with these times and packets come before the first key packet in either order."""
    key, key_ticks = next(((place, p.ticks) for place, p in enumerate(packets) if p.is_key), (0, None))
    is_shown_before = False if key_ticks is None else ticks < key_ticks
    return int(np.sum((places < key) | is_shown_before))


def _doubt(packets: Sequence[Packet], container: str, num_skipped: int) -> str:
    shown = [p for p in packets if not p.is_discard and not p.hidden]
    ticks = [p.ticks for p in shown if p.ticks is not None]
    first_key = next((p.ticks for p in packets if p.is_key), None)
    doubts = {
        "its container has no index of frames": not INDEXED_CONTAINERS & set(container.split(",")),
        "packets without times": len(ticks) < len(shown),
        "frames with equal times": len(set(ticks)) < len(ticks),
        "hidden frames": any(p.hidden for p in packets),
        "skipped frames": num_skipped > 0 or sum(p.num_pictures for p in packets[:-1]) > len(packets),
        "no key frame at its start": not packets or not packets[0].is_key,
        "frames before its first key frame": first_key is not None and bool(ticks) and min(ticks) < first_key,
    }
    return ", ".join(text for text, is_so in doubts.items() if is_so)


def mpeg4_pictures(data: bytes) -> int:
    """Coded pictures in an MPEG-4 packet (ISO/IEC 14496-2): a packed one holds two, a few bytes stand for none."""
    if len(data) <= _TINY_VOP_BYTES:
        return 0
    return data.count(_VOP_START)


def is_hidden_vp8(data: bytes) -> bool:
    """Whether a VP8 frame is not to be shown (RFC 6386, 9.1: the show_frame bit)."""
    return bool(data) and not (data[0] >> 4) & 1


def needed_packets(index: FrameIndex, frames: Sequence[int]) -> list[range]:
    """The packets that must be decoded for some frames: runs, in the order of the file, that need nothing before them."""
    stops: dict[int, int] = {}
    for packet in sorted(index.packets[frames].tolist()):
        stops[index.restarts[bisect_right(index.restarts, packet) - 1]] = packet + 1
    return [range(start, stop) for start, stop in stops.items()]


class H264Restarts:
    """Finds the packets of an H.264 stream at which decoding can begin as if nothing had been before.

    These are IDR pictures, unless they rely on parameter sets or a configuration that came after the stream's beginning.

    Args:
        configuration: the stream's own (`extradata`), perhaps empty.
    """

    def __init__(self, configuration: bytes) -> None:
        is_avcc = len(configuration) > 4 and configuration[0] == 1
        self._length_bytes = (configuration[4] & 3) + 1 if is_avcc else 0
        self._had_parameters = self._was_reconfigured = False

    def is_restart(self, data: bytes, *, reconfigures: bool) -> bool:
        """Whether the next packet is one.

        Args:
            reconfigures: a new configuration for the stream comes with it.
        """
        units = h264_units(data, length_bytes=self._length_bytes)
        self._was_reconfigured |= reconfigures
        is_alone = {_SPS, _PPS} <= units or not self._had_parameters
        self._had_parameters |= bool({_SPS, _PPS} & units)
        return _IDR in units and is_alone and not self._was_reconfigured


def h264_units(data: bytes, *, length_bytes: int) -> set[int]:
    """Types of the NAL units of an H.264 packet (ITU-T H.264, 7.4.1).

    Args:
        length_bytes: of the length before each unit (ISO/IEC 14496-15); 0 where start codes divide them instead.
    """
    if not length_bytes:
        return {unit[0] & 31 for unit in data.split(_START_CODE)[1:] if unit}
    types, at = set(), 0
    while at + length_bytes < len(data):
        types.add(data[at + length_bytes] & 31)
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    return types


def promised_frames(index: FrameIndex, *, header_frames: int, duration_ticks: float | None) -> int | None:
    """How many frames the container says it shows.

    Its own count of packets if it has one, less those that are never shown; else its duration times the measured rate,
    which holds for variable rates too. Packets that last as long as the container says are all there.

    Args:
        index: what was found.
        header_frames: the container's count of packets; 0 when it has none.
        duration_ticks: the stream's duration in units of its time base, from its start or from zero; None if unknown.
    """
    covered = index.shown_ticks
    if duration_ticks is not None and covered > 0:
        if duration_ticks > index.ticks[0] > 0 and not header_frames:
            covered += int(index.ticks[0])
        frame_ticks = index.shown_ticks / index.num_frames
        if duration_ticks - covered <= max(2 * frame_ticks, TOLERANCE * duration_ticks):
            return index.num_frames - index.num_skipped
    if header_frames > 0:
        return max(0, header_frames - index.num_unshown - index.num_skipped)
    if duration_ticks is None or covered <= 0:
        return None
    return round(duration_ticks * index.num_frames / covered)


def missing_frames(promised: int | None, found: int) -> int:
    """Frames missing beyond what is tolerated: two, or 2 % of the promise; else 0."""
    if promised is None or promised - found <= max(2, TOLERANCE * promised):
        return 0
    return promised - found


def missing_in_gaps(index: FrameIndex) -> int:
    """Frames that would fill the gaps, beyond what is tolerated, at a constant rate; a hint with variable rates."""
    if index.num_frames < 2:
        return 0
    usual = max(1.0, float(np.median(np.diff(index.ticks))))
    return missing_frames(round(index.shown_ticks / usual), index.num_frames)
