"""Frames' JPEGs joined to tall ones: what a decoder makes of those."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from loader.pictures import soft_colors

from vidpipe.loader.reading import filmstrip
from vidpipe.loader.reading.filmstrip import Filmstrip, join_frames
from vidpipe.shards.codecs.base import Frames


def jpegs(video: Frames, subsampling: str = "420", quality: int = 90) -> list[memoryview]:
    return [memoryview(simplejpeg.encode_jpeg(f, quality=quality, colorsubsampling=subsampling)) for f in video]


def decoded(strips: list[Filmstrip], lines: int) -> Frames:
    tall = [simplejpeg.decode_jpeg(strip.content) for strip in strips]
    films = [picture.reshape(s.frames, -1, *picture.shape[1:]) for s, picture in zip(strips, tall, strict=True)]
    assert [film.shape[1] for film in films] == [strip.pitch for strip in strips]
    return np.concatenate([film[:, :lines] for film in films])


@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
@pytest.mark.parametrize(("height", "width"), [(240, 320), (96, 72), (100, 91), (17, 16)])
def test_every_frame_decodes_as_alone_but_for_colours_of_its_outermost_lines(
    subsampling: str, height: int, width: int
) -> None:
    parts = jpegs(soft_colors(19, height, width), subsampling)
    alone = np.stack([simplejpeg.decode_jpeg(part) for part in parts])
    strips = join_frames(parts, lines=height)
    assert [strip.frames for strip in strips] == [19]
    joined = decoded(strips, height)
    assert np.array_equal(joined[:, 1:-1], alone[:, 1:-1])
    if subsampling != "420":  # nothing is interpolated between lines
        assert np.array_equal(joined, alone)
    brightness = np.array([0.299, 0.587, 0.114])
    assert np.abs(joined @ brightness - alone @ brightness).max() < 1.5


def test_what_has_other_tables_or_is_no_such_jpeg_stays_apart() -> None:
    video = soft_colors(4, 48, 64)
    fine, coarse = jpegs(video, quality=95), jpegs(video, quality=50)
    gray = memoryview(simplejpeg.encode_jpeg(np.ascontiguousarray(video[0, :, :, :1]), colorspace="GRAY"))
    parts = [*fine[:2], *coarse[:3], gray, memoryview(b"nothing"), fine[3]]
    strips = join_frames(parts, lines=48)
    assert [strip.frames for strip in strips] == [2, 3, 1, 1, 1]
    assert [bytes(strip.content) for strip in strips[2:]] == [bytes(part) for part in parts[5:]]
    assert [strip.frames for strip in join_frames(fine, lines=50)] == [1] * 4  # frames of another height
    cut = [*fine[:2], fine[2][:-2]]
    assert [strip.frames for strip in join_frames(cut, lines=48)] == [1] * 3


def test_strips_have_no_more_lines_than_a_decoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filmstrip, "MAX_LINES", 128)
    video = soft_colors(7, 40, 64)  # 48 lines of each
    strips = join_frames(jpegs(video), lines=40)
    assert [strip.frames for strip in strips] == [2, 2, 2, 1]
    assert np.abs(decoded(strips, 40).astype(int) - video)[:, 2:-2].max() < 12
