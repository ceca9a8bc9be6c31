"""A contact sheet: one PNG that shows many clips at a glance, so that a person can judge labels, times and pictures.

Every picture of frames is one: those of `vidpipe inspect`, and those that training draws of itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidpipe.files import whole_file
from vidpipe.report.fonts import load_font, printable

_MARGIN = 12
_GAP = 6
_TEXT_WIDTH = 232
_FRAME_HEIGHT = 120
_MAX_FRAME_WIDTH = 214
_TIME_HEIGHT = 18
_INK, _FAINT, _PAPER, _RULE = (20, 20, 20), (110, 110, 110), (255, 255, 255), (222, 222, 222)


@dataclass(frozen=True)
class ClipRow:
    """One row of a contact sheet.

    Attributes:
        label: class name, or whatever is to stand in bold.
        details: lines below it in small print: the sample's key, the video's path, remarks.
        frames: uint8 [T, H, W, 3] RGB.
        times_seconds: presentation time of each frame, T numbers, if they are to be shown.

    Raises:
        ValueError: the shapes don't fit.
    """

    label: str
    details: tuple[str, ...]
    frames: npt.NDArray[np.uint8]
    times_seconds: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3:
            raise ValueError(f"expected frames [T, H, W, 3], got {self.frames.shape = }")
        if self.times_seconds is not None and len(self.times_seconds) != len(self.frames):
            raise ValueError(f"expected a time for each of {len(self.frames)} frames, got {len(self.times_seconds)}")


def write_contact_sheet(
    clips: Iterable[ClipRow], path: Path, *, frames_per_clip: int = 8, full_size: bool = False
) -> None:
    """Write a PNG with a row for each clip: label and details, then frames from the first to the last with their times.

    Small frames are enlarged by a whole factor, so that their pixels can be seen.

    Args:
        frames_per_clip: frames shown of each clip, evenly spread, fewer where the clip has fewer.
        full_size: large frames are shown as they are instead of reduced.

    Raises:
        ValueError: there are no clips.
    """
    rows = [_draw_row(clip, frames_per_clip, full_size=full_size) for clip in clips]
    if not rows:
        raise ValueError("a contact sheet needs at least one clip")
    top = _MARGIN
    width = max(row.width for row in rows) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, top + sum(row.height + _GAP for row in rows) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row in rows:
        draw.line((_MARGIN, top, width - _MARGIN, top), fill=_RULE)
        sheet.paste(row, (_MARGIN, top + 1))
        top += row.height + _GAP
    with whole_file(path) as stream:
        sheet.save(stream, format="PNG")


def _draw_row(clip: ClipRow, frames_per_clip: int, *, full_size: bool) -> Image.Image:
    num_frames, height, width, _ = clip.frames.shape
    shown = np.unique(np.linspace(0, num_frames - 1, min(frames_per_clip, num_frames)).round().astype(int))
    scale = min(_FRAME_HEIGHT / height, _MAX_FRAME_WIDTH / width)
    enlarged = scale >= 1 or full_size
    if enlarged:
        scale = max(1, round(scale))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cell_width, bottom = max(size[0], 52), _GAP + max(size[1], _FRAME_HEIGHT)
    row = Image.new("RGB", (_TEXT_WIDTH + len(shown) * (cell_width + _GAP), bottom + _TIME_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(row)
    _draw_text(draw, clip)
    for column, index in enumerate(shown):
        left = _TEXT_WIDTH + column * (cell_width + _GAP)
        method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        frame = Image.fromarray(clip.frames[index]).resize(size, method)
        row.paste(frame, (left + (cell_width - size[0]) // 2, bottom - size[1]))
        if clip.times_seconds is not None:
            middle = (left + cell_width / 2, bottom + 3)
            draw.text(middle, f"{clip.times_seconds[index]:.2f} s", font=load_font(12), fill=_FAINT, anchor="ma")
    return row


def _draw_text(draw: ImageDraw.ImageDraw, clip: ClipRow) -> None:
    """The left part of a row: the label, then the details and the frames' size in small print."""
    bold, small = load_font(15, bold=True), load_font(11)
    y = _GAP
    for line in _lines(clip.label, bold):
        draw.text((0, y), line, font=bold, fill=_INK)
        y += 19
    _, height, width, _ = clip.frames.shape
    for detail in (*clip.details, f"{width} x {height}"):
        for line in _lines(detail, small):
            draw.text((0, y + 3), line, font=small, fill=_FAINT)
            y += 15


def _lines(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """`text` on at most two lines that fit into the text column; what is too much gives way to an ellipsis in its middle."""
    text = shown = printable(text)
    keep, width = len(text), _TEXT_WIDTH - 2 * _GAP
    columns = int(width / font.getlength("n"))
    while True:
        lines = textwrap.wrap(shown, columns)
        if len(lines) <= 2 and all(font.getlength(line) <= width for line in lines):
            return lines
        keep -= 1
        shown = text[: keep // 2] + "…" + text[len(text) - (keep - keep // 2) :]
