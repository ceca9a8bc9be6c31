from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets import Video, get_format
from vidpipe.datasets.csv import Csv
from vidpipe.errors import DatasetError, UsageError

Make = Callable[..., Path]


def test_rows_with_everything_that_spreadsheets_do_to_them(make_files: Make) -> None:
    source = make_files("a.mp4", "b c.mp4", 'say "hi", you\n.mp4', "d.mp4", "extra.mp4", "notes.txt", "-rf.mp4")
    rows = (
        b"\xef\xbb\xbf Path , LABEL,split\r\n"
        b"a.mp4,run,train\r\n"
        b"\r\n"
        b'"b c.mp4" , "petting animal (not cat)" ,Validation,,\r\n'
        b'"say ""hi"", you\n.mp4",run\r\n'
        b"./d.mp4,run,\r\n"
        b"d.mp4,run,train\r\n"
        b"gone.mp4,run,val\r\n"
        b"-rf.mp4,run,unseen_people\r\n"
    )
    (source / "labels.csv").write_bytes(rows)
    listing = Csv().scan(source)
    assert listing.videos == (
        Video("a.mp4", "run", "train"),
        Video("d.mp4", "run", "train"),
        Video('say "hi", you\n.mp4', "run", "train"),
        Video("-rf.mp4", "run", "unseen_people"),
        Video("b c.mp4", "petting animal (not cat)", "val"),
    )
    assert listing.missing == (Video("gone.mp4", "run", "val"),)
    assert listing.classes == ("petting animal (not cat)", "run")
    assert listing.splits == ("train", "val", "unseen_people")
    assert listing.counts == {
        **{"missing": 1, "duplicates": 1, "extra_videos": 1, "other_files": 1},
        **{"byte_order_marks": 1, "crlf_lines": 9, "quoted_values": 3, "classes_without_train": 1},
    }
    assert any("gone.mp4" in note for note in listing.notes)


def test_bytes_that_are_not_utf8_match_the_files_name(make_files: Make) -> None:
    source = make_files("caf\udce9.mp4")
    (source / "l\udce9.csv").write_bytes(b"path,label\ncaf\xe9.mp4,na\xefve\ncaf\xe9.mp4,\n")
    listing = Csv(annotations="l\udce9.csv").scan(source)
    assert listing.videos == (Video("caf\udce9.mp4", r"na\xefve", "train"),)
    assert listing.counts["lines_not_utf8"] == 2
    assert any("the first is l\\xe9.csv line 3: 'caf\\udce9.mp4' has no label" in note for note in listing.notes)


def test_bad_rows_are_left_out_counted_and_named(make_files: Make) -> None:
    source = make_files(*(f"{name}.mp4" for name in "abcdefgh"), " spaced .mp4")
    (source / "labels.csv").write_text(
        "path,label,split\n"
        'a.mp4, "x, y",train,\n'
        "b.mp4,run,train,again\n"  # line 3: too many values
        '"c".mp4,run\n'  # line 4: quotes that don't match
        "d.mp4,\n"  # line 5: no label
        " ,run\n"  # line 6: no path
        'e.mp4,"say, ""hi"""\n'
        "f.mp4,run, , ,\n"
        " spaced .mp4,run\n"
        "g.mp4,run,val\n"
        "h.mp4,,test\n"
    )
    listing = Csv().scan(source)
    assert listing.counts["bad_rows"] == 4
    assert any("4 rows can't be read" in note and "labels.csv line 3: 4 values" in note for note in listing.notes)
    assert {video.path: video.label for video in listing.videos} == {
        **{"a.mp4": "x, y", "e.mp4": 'say, "hi"', "f.mp4": "run", " spaced .mp4": "run", "g.mp4": "run", "h.mp4": None}
    }


def test_whole_numbers_keep_their_order(make_files: Make) -> None:
    source = make_files(*(f"{number}.mp4" for number in range(12)))
    (source / "labels.csv").write_text("path,label\n" + "".join(f"{n}.mp4,{n}\n" for n in range(12)))
    listing = Csv().scan(source)
    assert listing.classes == tuple(str(number) for number in range(12)) and not listing.notes
    (source / "labels.csv").write_text("path,label\n0.mp4,10\n1.mp4,2\n2.mp4,-1\n")
    listing = Csv().scan(source)
    assert listing.classes == ("-1", "2", "10")
    assert any("not 0 to 2" in note for note in listing.notes)
    (source / "labels.csv").write_text("path,label\n0.mp4,10\n1.mp4,2\n2.mp4,b\n")
    assert Csv().scan(source).classes == ("10", "2", "b")


def test_the_real_clips(videos_dir: Path) -> None:
    listing = Csv(annotations="labels.csv").scan(videos_dir)
    assert len(listing.videos) == 11
    assert len(listing.classes) == 8
    assert listing.splits == ("train", "val")


def test_other_delimiters_and_a_table_elsewhere(make_files: Make, tmp_path: Path) -> None:
    source = make_files("a,b.mp4")
    (tmp_path / "elsewhere.tsv").write_text("label\tpath\nrun\ta,b.mp4\n")
    listing = Csv(annotations=str(tmp_path / "elsewhere.tsv"), delimiter="tab").scan(source)
    assert listing.videos == (Video("a,b.mp4", "run", "train"),)
    (source / "labels.csv").write_text("path;label\na,b.mp4;run\n", encoding="utf-16")
    assert Csv(delimiter=";").scan(source).videos == listing.videos


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header"),
        ("a.mp4,run\n", "lacks path, label.*a row already.*recipe list"),
        ("path\tlabel\na.mp4\trun\n", "lacks path, label.*delimiter=tab"),
        ("Path; Label\na.mp4; run\n", "lacks path, label.*delimiter=semicolon"),
        ('"path"; "label"\na.mp4,run\n', "line 1: not valid CSV.*parted by ','"),
        ("video,label\na.mp4,run\n", "lacks path;.*rename its columns"),
        ("path,split\na.mp4,train\n", "lacks label"),
        ("path,label,label\n", "twice in the header"),
        ("path,label\n", "no video is annotated"),
        ("path,label\na.mp4,run, fast\n", "line 2: 3 values, but the header has 2 columns"),
        ('path,label\n"a"x.mp4,run\n', "line 2: not valid CSV"),
        ('path,label\na.mp4,run\nb.mp4,"walk\nc.mp4,run\n', "line 3: not valid CSV.*which don't end in this line"),
        ("path,label\na.mp4,run\nb.mp4,\nc.mp4,\n", r"line 3: 'b.mp4' has no label.*\(and 1 more rows can't"),
        ("path,label\na.mp4,run\na.mp4,walk\n", "'run' in labels.csv line 2, 'walk' in labels.csv line 3"),
        ("path,label,split\na.mp4,run,train\na.mp4,walk,val\n", "two labels"),
        ("path,label\na.mp4,\n", "line 2: 'a.mp4' has no label"),
        ("path,label\n,run\n", "line 2: the path is empty"),
        ("path,label\na\0.mp4,run\n", r"line 2: the path is 'a\\x00\.mp4'"),
        ("path,label\n../a.mp4,run\n", "line 2: path '../a.mp4' is not inside"),
        ("path,label\nx/../../a.mp4,run\n", "is not inside"),
        ("path,label\n/etc/passwd,run\n", "is not inside"),
        ("path,label\nlink/a.mp4,run\n", "is a link to .* outside the source folder"),
        ("path,label,split\na.mp4,run,../x\n", "line 2: split '../x'"),
        ("path,label\ngone.mp4,run\n", "none of the 1 annotated videos is there; the first is 'gone.mp4'"),
    ],
)
def test_mistakes_are_refused_by_line(make_files: Make, tmp_path: Path, text: str, message: str) -> None:
    source = make_files("a.mp4")
    (tmp_path / "a.mp4").touch()
    (source / "link").symlink_to(tmp_path)
    (source / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        Csv().scan(source)


def test_a_video_in_two_splits_is_listed_in_both_and_noted(make_files: Make) -> None:
    source = make_files("a.mp4", "b.mp4")
    (source / "labels.csv").write_text("path,label,split\na.mp4,run,train\na.mp4,run,val\nb.mp4,,test\n")
    listing = Csv().scan(source)
    assert [video.split for video in listing.videos] == ["test", "train", "val"]
    assert listing.videos[0].label is None
    assert listing.counts["in_several_splits"] == 1


def test_an_absolute_path_inside_the_source_is_taken(make_files: Make) -> None:
    source = make_files("x/a.mp4")
    (source / "labels.csv").write_text(f"path,label\n{source}/x/a.mp4,run\n")
    assert Csv().scan(source).videos == (Video("x/a.mp4", "run", "train"),)


@pytest.mark.parametrize("path", ["a", "A.AVI", "train/a.avi", "a.mp4"])
def test_the_note_on_a_missing_video_names_one_of_nearly_that_path(make_files: Make, path: str) -> None:
    source = make_files("x/a.avi", "x/a.txt", "b.avi")
    (source / "labels.csv").write_text(f"path,label\n{path},run\n")
    with pytest.raises(DatasetError, match=rf"the first is '{path}' \(there is 'x/a.avi'\), from labels.csv line 2"):
        Csv().scan(source)
    (source / "labels.csv").write_text(f"path,label\n{path},run\nb.avi,run\n")
    assert (
        f"1 annotated videos are not in the folder, the first is {path!r} (there is 'x/a.avi')"
        in Csv().scan(source).notes
    )


def test_columns_that_are_not_read_are_named(make_files: Make) -> None:
    source = make_files("a.mp4")
    (source / "labels.csv").write_text("path,label,start,end\na.mp4,run,1,2\n")
    assert Csv().scan(source).notes == ("columns other than path, label and split are not read: start, end",)


def test_a_missing_table_is_refused(make_files: Make) -> None:
    with pytest.raises(DatasetError, match=r"annotations: no file .*labels\.csv"):
        Csv().scan(make_files("a.mp4"))


def test_formats_are_found_by_name() -> None:
    assert get_format("csv") is Csv
    with pytest.raises(UsageError, match="did you mean folder"):
        get_format("foldr")
