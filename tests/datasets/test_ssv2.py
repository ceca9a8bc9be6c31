from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidpipe.datasets import Video
from vidpipe.datasets.ssv2 import SSv2
from vidpipe.errors import DatasetError

Make = Callable[..., Path]

LABELS = {
    "Pulling something from left to right": "1",
    "Approaching something with your camera": "0",
    "Moving something up": "2",
}
ENTRIES: dict[str, Any] = {
    "labels": LABELS,
    "train": [
        {
            "id": "10",
            "label": "pulling a cup",
            "template": "Pulling [something] from left to right",
            "placeholders": ["cup"],
        },
        {"id": "2", "label": "moving a pen up", "template": "Moving [something] up", "placeholders": ["pen"]},
    ],
    "validation": [{"id": "3", "template": "Approaching [something] with your camera"}],
    "test": [{"id": "4"}, {"id": "5"}],
}


def annotate(folder: Path, prefix: str = "", **changed: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in {**ENTRIES, **changed}.items():
        (folder / f"{prefix}{name}.json").write_text(json.dumps(value))


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_official_layout(make_files: Make, prefix: str) -> None:
    source = make_files(*(f"20bn-something-something-v2/{video}.webm" for video in (10, 2, 3, 4, 99)))
    annotate(source / "labels", prefix)
    listing = SSv2(num_classes=3).scan(source)
    folder = "20bn-something-something-v2"
    assert listing.videos == (
        Video(f"{folder}/4.webm", None, "test"),
        Video(f"{folder}/10.webm", "Pulling something from left to right", "train"),
        Video(f"{folder}/2.webm", "Moving something up", "train"),
        Video(f"{folder}/3.webm", "Approaching something with your camera", "val"),
    )
    assert listing.missing == (Video("5.webm", None, "test"),)
    assert listing.classes == tuple(sorted(LABELS, key=lambda name: int(LABELS[name])))
    assert listing.counts["extra_videos"] == 1
    assert listing.counts["other_files"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train": [{"id": "2", "template": "Moving [something] upp"}]},
            "train.json entry 1: label 'Moving something upp'.*up",
        ),
        ({"train": [{"id": "2"}] * 9}, "train.json entry 1: '2.webm' has no label"),
        ({"train": ["2"] * 9}, "train.json entry 1: expected an object"),
        ({"train": [{"id": "../2", "template": "Moving [something] up"}]}, "entry 1: id '../2'"),
        ({"train": {"2": "x"}}, "expected a list"),
        ({"labels": {"a": "1", "b": "1"}}, "not 0 to 1"),
        ({"labels": ["a"]}, "expected an object"),
    ],
)
def test_mistakes_are_refused(make_files: Make, changed: dict[str, Any], message: str) -> None:
    source = make_files("2.webm")
    annotate(source, **changed)
    with pytest.raises(DatasetError, match=message):
        SSv2().scan(source)


def test_missing_tables_are_refused(make_files: Make) -> None:
    source = make_files("2.webm")
    with pytest.raises(DatasetError, match=r"expected labels\.json"):
        SSv2().scan(source)
    (source / "labels.json").write_text("{")
    (source / "train.json").write_text("[]")
    with pytest.raises(DatasetError, match="not valid JSON"):
        SSv2().scan(source)
