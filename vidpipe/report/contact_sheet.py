"""A contact sheet: one PNG that shows many clips at a glance, so that a person can judge labels, times and pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidpipe.report.fonts import load_font, printable
from vidpipe.shards.layout import whole_file

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
        times_seconds: presentation time of each frame, T numbers.
        frames: uint8 [T, H, W, 3] RGB.

    Raises:
        ValueError: the shapes don't fit.
    """

    label: str
    details: tuple[str, ...]
    times_seconds: npt.NDArray[np.float64]
    frames: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or len(self.times_seconds) != len(self.frames):
            raise ValueError(
                f"expected frames [T, H, W, 3] and T times, got {self.frames.shape = }, {len(self.times_seconds) = }"
            )


def write_contact_sheet(clips: Iterable[ClipRow], path: Path, *, title: str = "", frames_per_clip: int = 8) -> None:
    """Write a PNG with a row for each clip: label and details, then frames from the first to the last with their times.

    Args:
        title: a line above the rows.
        frames_per_clip: frames shown of each clip, evenly spread, fewer where the clip has fewer.

    Raises:
        ValueError: there are no clips.
    """
    rows = [_draw_row(clip, frames_per_clip) for clip in clips]
    if not rows:
        raise ValueError("a contact sheet needs at least one clip")
    top = _MARGIN + (30 if title else 0)
    width = max(row.width for row in rows) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, top + sum(row.height + _GAP for row in rows) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), printable(title), font=load_font(17, bold=True), fill=_INK)
    for row in rows:
        draw.line((_MARGIN, top, width - _MARGIN, top), fill=_RULE)
        sheet.paste(row, (_MARGIN, top + 1))
        top += row.height + _GAP
    with whole_file(path) as stream:
        sheet.save(stream, format="PNG")


def _draw_row(clip: ClipRow, frames_per_clip: int) -> Image.Image:
    num_frames, height, width, _ = clip.frames.shape
    shown = np.unique(np.linspace(0, num_frames - 1, min(frames_per_clip, num_frames)).round().astype(int))
    scale = min(_FRAME_HEIGHT / height, _MAX_FRAME_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cell_width = max(size[0], 52)
    row_width = _TEXT_WIDTH + len(shown) * (cell_width + _GAP)
    row = Image.new("RGB", (row_width, _GAP + _FRAME_HEIGHT + _TIME_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(row)
    _draw_text(draw, clip)
    for column, index in enumerate(shown):
        left = _TEXT_WIDTH + column * (cell_width + _GAP)
        frame = Image.fromarray(clip.frames[index]).resize(size, Image.Resampling.LANCZOS)
        row.paste(frame, (left + (cell_width - size[0]) // 2, _GAP + _FRAME_HEIGHT - size[1]))
        time = f"{clip.times_seconds[index]:.2f} s"
        middle = (left + cell_width / 2, _GAP + _FRAME_HEIGHT + 3)
        draw.text(middle, time, font=load_font(12), fill=_FAINT, anchor="ma")
    return row


def _draw_text(draw: ImageDraw.ImageDraw, clip: ClipRow) -> None:
    """The left part of a row: label on up to two lines, then the details and the frames' size in small print."""
    bold, small = load_font(15, bold=True), load_font(11)
    y = _GAP
    for line in textwrap.wrap(printable(clip.label), 24, max_lines=2, placeholder=" …"):
        draw.text((0, y), _fit(line, bold), font=bold, fill=_INK)
        y += 19
    _, height, width, _ = clip.frames.shape
    for line in (*clip.details, f"{width} x {height}"):
        draw.text((0, y + 3), _fit(printable(line), small), font=small, fill=_FAINT)
        y += 15


def _fit(text: str, font: ImageFont.FreeTypeFont) -> str:
    """`text`, with an ellipsis in its middle if it is too wide for the text column."""
    width = _TEXT_WIDTH - 2 * _GAP
    keep = len(text)
    shown = text
    while keep > 2 and font.getlength(shown) > width:
        keep -= 1
        shown = text[: keep // 2] + "…" + text[len(text) - (keep - keep // 2) :]
    return shown
