from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidpipe.report.contact_sheet import ClipRow, write_contact_sheet


def row(frames: int, height: int, width: int, *, label: str = "run", details: tuple[str, ...] = ("key",)) -> ClipRow:
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[:] = np.linspace(60, 250, frames)[:, None, None, None]
    return ClipRow(label=label, details=details, times_seconds=np.arange(frames) / 25, frames=video)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("size", [(64, 72), (1080, 1920), (568, 320), (16, 2000), (2000, 16)])
def test_frames_are_shown_from_first_to_last_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    write_contact_sheet([row(32, *size)], tmp_path / "sheet.png")
    sheet = picture(tmp_path / "sheet.png")
    assert 100 < sheet.shape[0] < 400
    assert sheet.shape[1] < 2400
    greys = sheet[:, 240:].reshape(-1, 3)
    shown = {
        value for value in np.linspace(60, 250, 32).astype(np.uint8).tolist() if (greys == value).all(axis=1).sum() > 50
    }
    assert len(shown) == 8
    assert {60, 250} <= shown


def test_one_row_for_each_clip(tmp_path: Path) -> None:
    heights = []
    for number in (1, 3):
        write_contact_sheet([row(4, 64, 64)] * number, tmp_path / "sheet.png", frames_per_clip=6)
        heights.append(picture(tmp_path / "sheet.png").shape[0])
    assert heights[1] > 2.2 * heights[0]


def test_any_text_can_be_drawn(tmp_path: Path) -> None:
    texts = ("caf\udce9 \n\t\0 x" * 9, "", "чихать", "a" * 500)
    write_contact_sheet([row(2, 64, 64, label=text, details=texts) for text in texts], tmp_path / "sheet.png")
    ink = (picture(tmp_path / "sheet.png")[:, :240] < 100).all(axis=2)
    assert ink.any()
    assert not ink[:, 232:].any()


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_contact_sheet([row(8, 64, 72)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_pixels_of_small_frames_can_be_seen_and_large_ones_shown_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for side, factor in ((30, 4), (200, 1)):
        video = rng.integers(0, 256, (2, side, side, 3), np.uint8)
        write_contact_sheet([ClipRow("noise", (), video)], tmp_path / "sheet.png", full_size=True)
        sheet = picture(tmp_path / "sheet.png")
        enlarged = video.repeat(factor, axis=1).repeat(factor, axis=2)
        windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], (factor * side, factor * side))
        for frame in enlarged:
            corner = (windows[:, :, 0, 0] == frame[0, 0, 0]) & (windows[:, :, -1, -1] == frame[-1, -1, 0])
            assert any((windows[y, x] == frame[:, :, 0]).all() for y, x in np.argwhere(corner))


def test_shapes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a time for each of 4 frames"):
        ClipRow("x", (), np.zeros((4, 8, 8, 3), np.uint8), np.zeros(3))
    with pytest.raises(ValueError, match="expected frames"):
        ClipRow("x", (), np.zeros((4, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="at least one clip"):
        write_contact_sheet([], tmp_path / "sheet.png")
