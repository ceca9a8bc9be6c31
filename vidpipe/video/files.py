"""The file itself, before any decoder sees it: what C libraries may call it, was it cut short."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vidpipe.errors import VideoError

_SEGMENT = b"\x18S\x80g"
_CLUSTER = b"\x1fC\xb6u"
_BLOCKS = (b"\xa3", b"\xa0")  # SimpleBlock and BlockGroup, which lie in clusters
_TRACKS = b"\x16T\xaek"
_PROJECTION = b"vp"
_MATROSKA_HEAD_BYTES = 1 << 18
_MAX_MOOV_BYTES = 1 << 26
_MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
_UPRIGHT = bytes.fromhex("00010000 00000000 00000000 00000000 00010000")  # a, b, u, c, d of the matrix, 16.16
# With which files of the ISO family begin, as libav knows them, and their segments.
_ISO_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"junk", b"pnot", b"pict", b"udta", b"uuid", b"styp", b"sidx", b"moof")
)  # fmt: skip
_MEDIA_BOXES = frozenset({b"mdat", b"moof"})


@contextlib.contextmanager
def library_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name by which PyAV and decord, which encode names as UTF-8, open the file `path`.

    It is absolute, so that neither a leading dash nor a colon in it means anything. A name that is no UTF-8 is replaced
    by that of an open file descriptor, which is valid inside the `with` block.
    """
    name = absolute_path(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield name


def absolute_path(path: str | os.PathLike[str]) -> str:
    """`path` from the root, which no ffmpeg library takes for a protocol, an option or a pattern."""
    return str(Path(path).absolute())


def explain_unreadable(path: str | os.PathLike[str], complaint: str) -> VideoError:
    """Why a container could not be opened, judged by the file's own bytes.

    Args:
        complaint: what the demuxer said.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind = _kind(file.fileno())
        boxes = _iso_boxes(file.fileno(), size) if kind == "MP4" else []
    if not kind:
        return VideoError("not-a-video", f"this is no known container format ({complaint})", stage="probe")
    end = stated_end(path)
    if end is not None and end > size:
        return _cut_short(end, size)
    if boxes and b"moov" not in {name for name, _ in boxes}:
        message = "the file has no index (moov box): its writing or download never ended"
        return VideoError("truncated", message, stage="probe")
    return VideoError("damaged", f"the {kind} container is damaged ({complaint})", stage="probe")


def stated_end(path: str | os.PathLike[str]) -> int | None:
    """How many bytes the file has by its container's own account; None when that does not tell."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind = _kind(file.fileno())
        if kind == "MP4":
            boxes = _iso_boxes(file.fileno(), size)
            return boxes[-1][1] if boxes else None
        if kind == "RIFF":
            return 8 + int.from_bytes(os.pread(file.fileno(), 4, 4), "little")
        segment = _ebml_segment(file.fileno()) if kind == "Matroska" else None
        return segment[1] if segment else None


def check_not_cut(path: str | os.PathLike[str]) -> None:
    """See that the file doesn't end, by its container's own account, within what holds frames, or where such may follow.

    What RIFF says of its length is left out, as it is often wrong.

    Raises:
        VideoError: stage `probe`, reason `truncated`.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind = _kind(file.fileno())
        if kind == "MP4":
            boxes = _iso_boxes(file.fileno(), size)
            if boxes and boxes[-1][0] in _MEDIA_BOXES and boxes[-1][1] > size:
                raise _cut_short(boxes[-1][1], size)
        elif kind == "Matroska" and (segment := _ebml_segment(file.fileno())):
            start, end = segment
            if (end is None or end > size) and _ends_in_cluster(file.fileno(), start, size, is_live=end is None):
                raise _cut_short(end, size)
        elif kind == "Ogg" and _ends_in_ogg_page(file.fileno(), size):
            raise _cut_short(None, size)


def _cut_short(end: int | None, size: int) -> VideoError:
    account = "it ends within a frame" if end is None else f"it should have {end} bytes, but has {size}"
    return VideoError("truncated", f"the file is cut short: {account}", stage="probe")


def may_have_display_matrix(path: str | os.PathLike[str], *, container: str) -> bool:
    """Whether a video of the file may have to be turned: quick to tell without decoding, and True when in doubt.

    Args:
        container: ffmpeg's comma-separated names of the demuxer.
    """
    names = set(container.split(","))
    with Path(path).open("rb") as file:
        if "mov" in names:
            return _has_iso_turn(file.fileno(), os.fstat(file.fileno()).st_size)
        if "matroska" in names:
            head = os.pread(file.fileno(), _MATROSKA_HEAD_BYTES, 0).partition(_CLUSTER)[0]
            return _TRACKS not in head or _PROJECTION in head or len(head) == _MATROSKA_HEAD_BYTES
        return False


def _has_iso_turn(descriptor: int, size: int) -> bool:
    """Whether some movie or track header has a matrix that turns or flips (ISO/IEC 14496-12, 8.2.2 and 8.3.2)."""
    start = 0
    for name, end in _iso_boxes(descriptor, size):
        if name == b"moov" and end - start <= _MAX_MOOV_BYTES:
            moov = os.pread(descriptor, end - start, start)
            matrices = (
                moov[at + 4 + offset + (12 if moov[at + 4] else 0) :][:20]
                for box, offset in ((b"mvhd", 36), (b"tkhd", 40))
                for at in _occurrences(moov, box)
            )
            return any(matrix != _UPRIGHT for matrix in matrices)
        start = end
    return True


def _occurrences(data: bytes, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)


def _kind(descriptor: int) -> str:
    head = os.pread(descriptor, 8, 0)
    if head[4:8] in _ISO_BOXES:
        return "MP4"
    return {b"\x1aE\xdf\xa3": "Matroska", b"RIFF": "RIFF", b"OggS": "Ogg"}.get(head[:4], "")


def _iso_boxes(descriptor: int, size: int) -> list[tuple[bytes, int]]:
    """Name and end of the top-level boxes of an ISO base media file (ISO/IEC 14496-12, 4.2), while they make sense."""
    boxes: list[tuple[bytes, int]] = []
    at = 0
    while at + 8 <= size and len(boxes) < 10_000:
        header = os.pread(descriptor, 16, at)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - at
        if length < 8 or not header[4:8].isascii():
            break
        at += length
        boxes.append((header[4:8], at))
    return boxes


def _ebml_segment(descriptor: int) -> tuple[int, int | None] | None:
    """Where the content of the segment that follows the EBML header begins and ends (RFC 8794, RFC 9559); a live one doesn't tell its
    end. None when there is no segment.
    """
    head = os.pread(descriptor, 4096, 0)
    header_end = _ebml_element_end(head, 4)
    if header_end is None or head[header_end : header_end + 4] != _SEGMENT:
        return None
    return header_end + 4 + _ebml_length(head, header_end + 4), _ebml_element_end(head, header_end + 4)


def _ends_in_cluster(descriptor: int, start: int, size: int, *, is_live: bool) -> bool:
    """Whether the file of a segment ends in a cluster, which holds frames, or, where it is to go on, where one might begin.

    Args:
        is_live: it isn't said whether it is to go on.
    """
    at = start
    while at < size:
        header = os.pread(descriptor, 12, at)
        end = _ebml_element_end(header, _ebml_length(header, 0))
        if end is None and header[:4] == _CLUSTER:  # of unknown size: its blocks follow
            end = 4 + _ebml_length(header, 4)
        if end is None or at + end > size:
            return header.startswith((_CLUSTER, *_BLOCKS)) or (end is None and not is_live)
        at += end
    return not is_live


def _ends_in_ogg_page(descriptor: int, size: int) -> bool:
    """Whether the last page goes on behind the file's end (RFC 3533, 6)."""
    tail = os.pread(descriptor, _MAX_OGG_PAGE_BYTES, max(0, size - _MAX_OGG_PAGE_BYTES))
    page = tail[tail.rfind(b"OggS\0") :] if b"OggS\0" in tail else b""
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(page) and (len(page) < 27 or len(page) < 27 + page[26] + sum(segments))


def _ebml_length(data: bytes, at: int) -> int:
    """Bytes of the number that stands at `at`, which says so in its leading zero bits; 9 where it can't be one."""
    return 9 - data[at].bit_length() if at < len(data) else 9


def _ebml_element_end(data: bytes, at: int) -> int | None:
    """End of the element whose size, a number that says its own length in its leading zero bits, stands at `at`."""
    length = _ebml_length(data, at)
    if length > 8:
        return None
    ones = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & ones
    return None if size == ones else at + length + size
