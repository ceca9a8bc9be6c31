from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets.hmdb51 import HMDB51
from vidpipe.errors import DatasetError

Make = Callable[..., Path]

ODD = b"\xc9t\xe9 #1 [x]_brush_hair_u_nm_np1_ba_goo_0.avi"
ROWS = {
    "brush_hair_test_split1": b"April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \r\nb.avi 2 \r\n"
    + ODD
    + b" 1 \r\nc.avi 0 \r\n",
    "brush_hair_test_split2": b"April_09_brush_hair_u_nm_np1_ba_goo_0.avi 2 \nb.avi 1 \nc.avi 1 \n" + ODD + b" 0 \n",
    "wave_test_split1": b"b.avi 1 \ngone.avi 2 \n",
    "wave_test_split2": b"b.avi 2 \ngone.avi 1 \n",
}


def source_with(make_files: Make, **changed: bytes) -> Path:
    odd = ODD.decode("utf-8", "surrogateescape")
    names = ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "b.avi", "c.avi", odd)
    source = make_files(*(f"hmdb51_org/brush_hair/{name}" for name in names), "hmdb51_org/wave/b.avi")
    folder = source / "testTrainMulti_7030_splits"
    folder.mkdir()
    for name, text in {**ROWS, **changed}.items():
        (folder / f"{name}.txt").write_bytes(text)
    return source


def test_official_layout(make_files: Make) -> None:
    listing = HMDB51(num_classes=2).scan(source_with(make_files))
    assert [(video.path.split("/", 1)[1], video.split) for video in listing.videos] == [
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "train"),
        ("brush_hair/" + ODD.decode("utf-8", "surrogateescape"), "train"),
        ("wave/b.avi", "train"),
        ("brush_hair/b.avi", "val"),
    ]
    assert listing.classes == ("brush_hair", "wave")
    assert [video.path for video in listing.missing] == ["wave/gone.avi"]
    assert listing.counts["unused"] == 1
    assert listing.counts["extra_videos"] == 0
    assert listing.counts["other_files"] == 0


def test_another_split_uses_other_clips(make_files: Make) -> None:
    listing = HMDB51(fold=2).scan(source_with(make_files))
    train = [video.path for video in listing.videos if video.split == "train"]
    assert train == ["hmdb51_org/brush_hair/b.avi", "hmdb51_org/brush_hair/c.avi"]
    assert listing.counts["unused"] == 1


def test_mistakes_are_refused(make_files: Make) -> None:
    source = source_with(make_files, wave_test_split1=b"b.avi 3 \n")
    listing = HMDB51().scan(source)
    assert listing.counts["bad_rows"] == 1
    assert any("wave_test_split1.txt line 1: 'b.avi 3'" in note for note in listing.notes)
    with pytest.raises(DatasetError, match=r"no CLASS_test_split3\.txt"):
        HMDB51(fold=3).scan(source)
