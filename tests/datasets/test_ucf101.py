from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets import Video
from vidpipe.datasets.ucf101 import UCF101
from vidpipe.errors import DatasetError

Make = Callable[..., Path]

PUSHUPS = "HandstandPushups/v_HandStandPushups_g01_c01.avi"
FILES = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "YoYo/v_YoYo_g01_c01.avi", PUSHUPS)


def annotate(source: Path, **changed: str) -> None:
    folder = source / "ucfTrainTestlist"
    folder.mkdir()
    tables = {"classInd": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n\r\n"}
    for fold in (1, 2, 3):
        held_out = FILES[fold - 1]
        number = {name.split("/")[0]: index for index, name in enumerate((FILES[0], FILES[2], FILES[1]), start=1)}
        train = [name for name in FILES if name != held_out]
        tables[f"trainlist0{fold}"] = "".join(f"{name} {number[name.split('/')[0]]}\r\n" for name in train)
        tables[f"testlist0{fold}"] = f"{held_out}\r\nYoYo/v_YoYo_g09_c01.avi\r\n"
    for name, text in {**tables, **changed}.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_layout_and_its_three_splits(make_files: Make, fold: int) -> None:
    source = make_files(*(f"UCF-101/{name}" for name in FILES))
    annotate(source)
    listing = UCF101.model_validate({"fold": fold, "num_classes": 101}).scan(source)
    held_out = FILES[fold - 1]
    assert {video.path for video in listing.videos if video.split == "val"} == {f"UCF-101/{held_out}"}
    assert {video.path: video.label for video in listing.videos} == {
        f"UCF-101/{name}": name.split("/")[0] for name in FILES
    }
    assert listing.missing == (Video("YoYo/v_YoYo_g09_c01.avi", "YoYo", "val"),)
    assert listing.classes == ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
    assert listing.counts["other_files"] == 0
    assert any("3 classes, but 101" in note for note in listing.notes)


def test_videos_in_one_folder_and_classes_in_any_order(make_files: Make) -> None:
    """Of several copies, the same one is taken every time."""
    source = make_files(*(f"{copy}/{name.split('/')[1]}" for copy in "hgfedcba" for name in FILES))
    annotate(source, classInd="3 YoYo\n1 ApplyEyeMakeup\n2 HandstandPushups\n")
    listing = UCF101().scan(source)
    assert {video.path for video in listing.videos} == {f"a/{name.split('/')[1]}" for name in FILES}
    assert listing.classes == ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trainlist01": "YoYo/v_YoYo_g01_c01.avi 1\n"}, "trainlist01.txt line 1: .* has label 1, .*'ApplyEyeMakeup'"),
        ({"testlist01": "YoYoo/v_YoYo_g01_c01.avi\n"}, "label 'YoYoo'.*did you mean YoYo"),
        ({"testlist01": "../../YoYo/x.avi\n"}, "is not inside"),
        ({"classInd": "1 A\n3 B\n"}, "not 1 to 2"),
        ({"classInd": "A 1\n"}, "line 1: 'A 1': expected NUMBER NAME"),
    ],
)
def test_mistakes_are_refused(make_files: Make, changed: dict[str, str], message: str) -> None:
    source = make_files(*FILES)
    annotate(source, **changed)
    with pytest.raises(DatasetError, match=message):
        UCF101().scan(source)


def test_missing_lists_are_refused(make_files: Make) -> None:
    source = make_files(*FILES)
    with pytest.raises(DatasetError, match=r"no classInd\.txt, trainlist01\.txt, testlist01\.txt"):
        UCF101().scan(source)
    with pytest.raises(DatasetError, match="annotations: no folder"):
        UCF101(annotations="absent").scan(source)
