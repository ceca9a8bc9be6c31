"""Joins the JPEGs of a clip's frames to tall ones, without decoding them: a GPU decodes one tall picture several times as fast.

The frames stand one above the other in one scan, with a restart marker between any two: a decoder begins anew there, as it does
with the first bits of a picture. So every frame keeps its own bits, and decodes to the same brightness and colours; only where
a decoder interpolates 4:2:0 chroma across the seam, the outermost lines of two frames take a quarter of their colour (not of
their brightness) from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# ITU-T T.81, table B.1, without the leading 0xff.
_SOF0, _DHT, _SOI, _EOI, _SOS, _DRI, _RST0 = 0xC0, 0xC4, 0xD8, 0xD9, 0xDA, 0xDD, 0xD0
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {_DHT}  # of other processes than baseline, and what goes with them
_END = bytes((0xFF, _EOI))
_RESTARTS = [bytes((0xFF, _RST0 + number)) for number in range(8)]
_MAX_HEADER = 4096
MAX_LINES = 8192  # of a strip; a JPEG may have 65,535


def fresh_memory(size: int) -> memoryview:
    """Bytes of zero."""
    return memoryview(bytearray(size))


@dataclass(frozen=True, slots=True)
class Filmstrip:
    """A JPEG of some frames, one above the other.

    Attributes:
        content: the file.
        frames: how many it holds.
        pitch: lines from one frame's first to the next one's.
    """

    content: memoryview
    frames: int
    pitch: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Of a baseline JPEG with three components in one scan.

    Attributes:
        lines_at: where its number of lines stands.
        scan_at: where the header of the scan begins.
        bits_at: where that ends.
        unit_lines, unit_columns: of what is coded together (the MCU).
    """

    lines_at: int
    scan_at: int
    bits_at: int
    lines: int
    columns: int
    unit_lines: int
    unit_columns: int


def join_frames(
    parts: Sequence[memoryview], *, lines: int, memory: Callable[[int], memoryview] = fresh_memory
) -> list[Filmstrip]:
    """As few files as can be made of the frames' own ones, in their order.

    Frames whose files have other tables than the one before, and files that can't be joined, stay alone.

    Args:
        parts: a JPEG each.
        lines: of a frame.
        memory: gives so many bytes for what is joined.
    """
    strips: list[Filmstrip] = []
    place = 0
    while place < len(parts):
        first = parts[place]
        layout = _layout(bytes(first[:_MAX_HEADER]))
        if layout is None or layout.lines != lines:
            strips.append(Filmstrip(first, 1, lines))
            place += 1
            continue
        pitch = -(-lines // layout.unit_lines) * layout.unit_lines
        most = max(1, MAX_LINES // pitch)
        alike = [first]
        head = bytes(first[: layout.bits_at])
        for part in parts[place + 1 : place + most]:
            if bytes(part[: layout.bits_at]) != head:  # views are compared number by number
                break
            alike.append(part)
        units = (pitch // layout.unit_lines) * -(-layout.columns // layout.unit_columns)
        if len(alike) > 1 and units < 1 << 16 and all(part[-2:] == _END for part in alike):
            pieces = _joined(alike, layout, pitch=pitch, units=units)
            content, at = memory(sum(map(len, pieces))), 0
            for piece in pieces:
                content[at : at + len(piece)] = piece
                at += len(piece)
            strips.append(Filmstrip(content, len(alike), pitch))
        else:
            strips += [Filmstrip(part, 1, lines) for part in alike]
        place += len(alike)
    return strips


def _joined(parts: Sequence[memoryview], layout: _Layout, *, pitch: int, units: int) -> list[bytes | memoryview]:
    """What the joined file consists of."""
    head = parts[0]
    pieces: list[bytes | memoryview] = [
        head[: layout.lines_at],
        (len(parts) * pitch).to_bytes(2, "big"),
        head[layout.lines_at + 2 : layout.scan_at],
        bytes((0xFF, _DRI, 0, 4)) + units.to_bytes(2, "big"),
        head[layout.scan_at : layout.bits_at],
    ]
    for number, part in enumerate(parts):
        pieces += [part[layout.bits_at : -2], _RESTARTS[number % 8]]
    pieces[-1] = _END
    return pieces


def _layout(content: bytes) -> _Layout | None:
    """None for what doesn't begin as such a JPEG, or has restart markers already."""
    if content[:2] != bytes((0xFF, _SOI)):
        return None
    at, found = 2, None
    while at + 18 <= len(content) and content[at] == 0xFF:  # no segment that is looked into is longer
        marker, size = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _SOF0:
            sampling = [content[at + 11 + 3 * number] for number in range(3)] if content[at + 9] == 3 else []
            if not sampling or content[at + 4] != 8:
                return None
            found = (
                at + 5,
                int.from_bytes(content[at + 5 : at + 7], "big"),
                int.from_bytes(content[at + 7 : at + 9], "big"),
                8 * max(factors & 15 for factors in sampling),
                8 * max(factors >> 4 for factors in sampling),
            )
        elif marker == _SOS:
            if found is None or content[at + 4] != 3:
                return None
            lines_at, lines, columns, unit_lines, unit_columns = found
            return _Layout(lines_at, at, at + 2 + size, lines, columns, unit_lines, unit_columns)
        elif marker == _DRI or marker in _OTHER_FRAMES:
            return None
        at += 2 + size
    return None
