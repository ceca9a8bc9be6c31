from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets import Video, get_format
from vidpipe.datasets.list_file import ListFile
from vidpipe.errors import DatasetError

Make = Callable[..., Path]


def test_numbered_labels_keep_their_numbers(make_files: Make) -> None:
    source = make_files("a.mp4", "b c.mp4", "d.mp4")
    (source / "train.csv").write_bytes(b"a.mp4 2\r\nb c.mp4 10\r\n\r\na.mp4 2\r\n")
    (source / "val.csv").write_text("./d.mp4 0\ngone.mp4 2\n")
    listing = ListFile().scan(source)
    assert listing.videos == (Video("a.mp4", "2", "train"), Video("b c.mp4", "10", "train"), Video("d.mp4", "0", "val"))
    assert listing.missing == (Video("gone.mp4", "2", "val"),)
    assert listing.classes == tuple(str(number) for number in range(11))
    assert listing.counts["duplicates"] == 1
    assert get_format("list") is ListFile


def test_a_class_list_names_the_numbers(make_files: Make) -> None:
    source = make_files("a.mp4")
    (source / "train.csv").write_text("a.mp4 1\n")
    (source / "names.txt").write_text("walk\nrun\n")
    listing = ListFile(lists={"train": "train.csv"}, classes="names.txt").scan(source)
    assert listing.videos[0].label == "run"
    assert listing.classes == ("walk", "run")
    (source / "train.csv").write_text("a.mp4 2\n")
    with pytest.raises(DatasetError, match="line 1: label 2: the class list has 2 names"):
        ListFile(lists={"train": "train.csv"}, classes="names.txt").scan(source)


def test_named_labels_separator_and_prefix(make_files: Make) -> None:
    source = make_files("k/a, b.mp4")
    (source / "mine.txt").write_text("/data/old/k/a, b.mp4,run\n")
    options = ListFile(lists={"train": "mine.txt", "val": None}, separator=",", strip_prefix="/data/old")
    assert options.scan(source).videos == (Video("k/a, b.mp4", "run", "train"),)


def test_quotes_as_pandas_writes_them(make_files: Make) -> None:
    source = make_files("a b.mp4", 'say "hi" you.mp4', '"literal".mp4', "c.mp4", "d e.mp4")
    (source / "train.csv").write_text(
        '"a b.mp4" x\n"say ""hi"" you.mp4" "y"\n"literal".mp4 y\nc.mp4 "riding ""a"" bike"\nd e.mp4 y\nc.mp4\n'
    )
    listing = ListFile(lists={"train": "train.csv"}).scan(source)
    assert {video.path: video.label for video in listing.videos} == {
        **{"a b.mp4": "x", 'say "hi" you.mp4': "y", '"literal".mp4': "y", "c.mp4": 'riding "a" bike', "d e.mp4": "y"}
    }
    assert (listing.counts["quoted_values"], listing.counts["bad_rows"]) == (4, 1)
    assert listing.classes == ('riding "a" bike', "x", "y")


def test_minus_one_is_no_label_and_leaves_the_numbers_as_they_are(make_files: Make) -> None:
    source = make_files("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (source / "train.csv").write_text("a.mp4 2\nb.mp4 10\nc.mp4 -1\n")
    (source / "test.csv").write_text("d.mp4 -1\n")
    listing = ListFile(lists={"train": "train.csv", "test": "test.csv"}).scan(source)
    assert listing.classes == tuple(str(number) for number in range(11))
    assert Video("d.mp4", None, "test") in listing.videos
    assert "c.mp4" not in {video.path for video in listing.videos}
    assert listing.counts["bad_rows"] == 1 and any("train.csv line 3" in note for note in listing.notes)


def test_numbers_beside_names_are_refused_as_they_would_lose_their_places(make_files: Make) -> None:
    source = make_files("a.mp4", "b.mp4")
    (source / "train.csv").write_text("path label\na.mp4 2\nb.mp4 10\n")
    with pytest.raises(DatasetError, match=r"line 1: label 'label' is no number.*2 in train.csv line 2.*header"):
        ListFile(lists={"train": "train.csv"}).scan(source)
    (source / "names.txt").write_text("walk\nrun\n")
    (source / "train.csv").write_text("a.mp4 1\nb.mp4 walk\n")
    listing = ListFile(lists={"train": "train.csv"}, classes="names.txt").scan(source)
    assert [video.label for video in listing.videos] == ["run", "walk"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4", "line 1: 'a.mp4': expected a path, ' ' and a label"),
        ("/elsewhere/a.mp4 0", "is not inside"),
        ("a.mp4 999999999", "expected class numbers below"),
    ],
)
def test_mistakes_are_refused(make_files: Make, line: str, message: str) -> None:
    source = make_files("a.mp4")
    (source / "train.csv").write_text(line)
    with pytest.raises(DatasetError, match=message):
        ListFile(lists={"train": "train.csv"}).scan(source)
    with pytest.raises(DatasetError, match=r"lists\.val: no file"):
        ListFile(lists={"val": "val.csv"}).scan(source)
