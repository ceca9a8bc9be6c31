from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets import Video
from vidpipe.datasets.kinetics import Kinetics
from vidpipe.errors import DatasetError

Make = Callable[..., Path]

TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
"petting animal (not cat)",-aaaaaaaaaa,17,27,train,0
"petting animal (not cat)",bbbbbbbbbb_,3,13,train,0
abseiling,ccccccccccc,0,10,train,1
abseiling,ddddddddddd,1000,1010,train,0
"""
VAL = "label,youtube_id,time_start,time_end,split\nzumba,eeeeeeeeeee,1,11,val\nabseiling,fffffffffff,5,15,val\n"
TEST = "youtube_id,time_start,time_end,split\nggggggggggg,7,17,test\n"


def annotate(folder: Path, **tables: str) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)


def test_cvdf_layout_with_replacements(make_files: Make) -> None:
    source = make_files(
        "train/-aaaaaaaaaa_000017_000027.mp4",
        "train/bbbbbbbbbb__000003_000013.mp4",
        "train/ccccccccccc_000000_000010.mp4",
        "val/eeeeeeeeeee_000001_000011.mp4",
        "val/fffffffffff_000005_000015.mp4",
        "test/ggggggggggg_000007_000017.mp4",
        "train/hhhhhhhhhhh_000000_000010.mp4",
        "train/short.mp4",
        "all/eeeeeeeeeee_000001_000011.mp4",
        "replacement/replacement_for_corrupted_k400/ccccccccccc_000000_000010.mp4",
    )
    annotate(source / "annotations", train=TRAIN, val=VAL, test=TEST)
    listing = Kinetics().scan(source)
    assert listing.videos == (
        Video("test/ggggggggggg_000007_000017.mp4", None, "test"),
        Video("replacement/replacement_for_corrupted_k400/ccccccccccc_000000_000010.mp4", "abseiling", "train"),
        Video("train/-aaaaaaaaaa_000017_000027.mp4", "petting animal (not cat)", "train"),
        Video("train/bbbbbbbbbb__000003_000013.mp4", "petting animal (not cat)", "train"),
        Video("val/eeeeeeeeeee_000001_000011.mp4", "zumba", "val"),
        Video("val/fffffffffff_000005_000015.mp4", "abseiling", "val"),
    )
    assert listing.missing == (Video("train/ddddddddddd_001000_001010.mp4", "abseiling", "train"),)
    assert listing.classes == ("abseiling", "petting animal (not cat)", "zumba")
    assert listing.counts["replaced"] == 1
    assert listing.counts["missing"] == 1
    assert listing.counts["extra_videos"] == 3
    assert listing.counts["other_files"] == 0


def test_flat_or_class_folders_and_other_times(make_files: Make) -> None:
    source = make_files(
        "a/-aaaaaaaaaa_000018_000028.mp4",
        "a/bbbbbbbbbb_.mp4",
        "a/ccccccccccc_0_10.webm",
        "x/y/eeeeeeeeeee_000001_000011.mp4",
    )
    annotate(source, kinetics_train=TRAIN, validate=VAL)
    listing = Kinetics().scan(source)
    assert {video.path: video.split for video in listing.videos} == {
        "a/-aaaaaaaaaa_000018_000028.mp4": "train",
        "a/bbbbbbbbbb_.mp4": "train",
        "a/ccccccccccc_0_10.webm": "train",
        "x/y/eeeeeeeeeee_000001_000011.mp4": "val",
    }
    assert listing.counts["other_times"] == 2
    assert any(note.startswith("2 clips were found by their id alone") for note in listing.notes)
    assert listing.counts["missing"] == 2


def test_segments_of_one_video_are_not_confused(make_files: Make) -> None:
    """Where an id has several clips, a file has to agree in time at least roughly, and splits keep their own files."""
    rows = "abseiling,aaaaaaaaaaa,0,10,train\nzumba,aaaaaaaaaaa,40,50,train\nzumba,aaaaaaaaaaa,70,80,train\n"
    source = make_files(
        "train/aaaaaaaaaaa_000040_000050.mp4",
        "train/aaaaaaaaaaa_000072_000082.mp4",
        "train/aaaaaaaaaaa.mp4",
        "val/aaaaaaaaaaa_000000_000010.mp4",
    )
    annotate(source, train=TRAIN.partition("\n")[0] + "\n" + rows)
    listing = Kinetics().scan(source)
    assert [(video.path, video.label) for video in listing.videos] == [
        ("train/aaaaaaaaaaa_000040_000050.mp4", "zumba"),
        ("train/aaaaaaaaaaa_000072_000082.mp4", "zumba"),
    ]
    assert listing.missing == (Video("train/aaaaaaaaaaa_000000_000010.mp4", "abseiling", "train"),)
    assert listing.counts["extra_videos"] == 2


def test_torchvision_layout_without_tables(make_files: Make) -> None:
    listing = Kinetics().scan(make_files("train/abseiling/x.mp4", "val/zumba/y.mp4"))
    assert [(video.split, video.label) for video in listing.videos] == [("train", "abseiling"), ("val", "zumba")]
    assert any("no annotation tables" in note for note in listing.notes)


def test_notes_for_the_class_number_and_for_mixing(make_files: Make, tmp_path: Path) -> None:
    source = make_files("eeeeeeeeeee.mp4")
    annotate(tmp_path / "tables", val=VAL)
    listing = Kinetics(annotations=str(tmp_path / "tables"), num_classes=700).scan(source)
    assert any("2 classes, but 700 were expected" in note for note in listing.notes)
    assert any("Kinetics-400's val" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "no annotation tables"),
        ({"train": "youtube_id,time_start,time_end\n"}, "lacks label"),
        ({"train": "label,youtube_id,time_start,time_end\nx,aaaaaaaaaaa,soon,10\n"}, "line 2: time_start 'soon'"),
        ({"train": "label,youtube_id,time_start,time_end\nx,../../secret,0,10\n"}, "line 2: youtube_id"),
        ({"train": "label,youtube_id,time_start,time_end\n,aaaaaaaaaaa,0,10\n"}, "has no label"),
        (
            {"train": TRAIN + "zumba,ccccccccccc,0,10,train,1\n"},
            "'abseiling' in train.csv line 4, 'zumba' in train.csv line 6",
        ),
        ({"train": TRAIN, "kinetics_train": VAL}, "differ"),
    ],
)
def test_mistakes_are_refused(make_files: Make, tables: dict[str, str], message: str) -> None:
    source = make_files("ccccccccccc_000000_000010.mp4")
    annotate(source, **tables)
    with pytest.raises(DatasetError, match=message):
        Kinetics().scan(source)
