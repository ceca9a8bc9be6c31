from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from vidpipe.datasets.msrdailyactivity3d import ACTIVITIES, MSRDailyActivity3D
from vidpipe.errors import DatasetError

Make = Callable[..., Path]


def test_the_whole_data_set(make_files: Make) -> None:
    names = [f"a{a:02d}_s{s:02d}_e{e:02d}" for a in range(1, 17) for s in range(1, 11) for e in (1, 2)]
    source = make_files(*(f"rgb/{name}_rgb.avi" for name in names), "depth/a01_s01_e01_depth.bin")
    listing = MSRDailyActivity3D().scan(source)
    by_split = {split: [video for video in listing.videos if video.split == split] for split in ("train", "val")}
    assert (len(by_split["train"]), len(by_split["val"])) == (256, 64)
    assert {video.path[8:11] for video in by_split["val"]} == {"s09", "s10"}
    assert listing.classes == ACTIVITIES
    assert all(ACTIVITIES.index(str(video.label)) == int(video.path[5:7]) - 1 for video in listing.videos)
    assert not any("whole data set" in note for note in listing.notes)
    assert listing.counts["other_files"] == 1


def test_train_subjects_are_chosen_and_noted(make_files: Make) -> None:
    source = make_files("A05_S01_E01_RGB.avi", "a05_s02_e01_rgb.avi", "other.avi")
    listing = MSRDailyActivity3D(train_subjects=(2,)).scan(source)
    assert [(video.path, video.split) for video in listing.videos] == [
        ("a05_s02_e01_rgb.avi", "train"),
        ("A05_S01_E01_RGB.avi", "val"),
    ]
    assert any("train has the subjects 2" in note for note in listing.notes)
    assert any("2 clips found; the whole data set has 320" in note for note in listing.notes)
    assert listing.counts["extra_videos"] == 1


def test_mistakes_are_refused(make_files: Make) -> None:
    with pytest.raises(DatasetError, match="no colour videos"):
        MSRDailyActivity3D().scan(make_files("x.avi"))
    with pytest.raises(DatasetError, match="a01 to a16"):
        MSRDailyActivity3D().scan(make_files("a17_s01_e01_rgb.avi"))
    with pytest.raises(ValidationError):
        MSRDailyActivity3D(train_subjects=(11,))
