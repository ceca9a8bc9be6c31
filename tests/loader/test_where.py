"""Conditions on samples.parquet: what they select, and how a wrong one is answered."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from vidpipe.errors import UsageError
from vidpipe.loader.where import matching_rows
from vidpipe.shards.index import SCHEMA, write_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six samples; of the last one, some values are missing."""
    defaults = {
        field.name: "" if pa.types.is_string(field.type) else [] if pa.types.is_list(field.type) else 0
        for field in SCHEMA
    }
    rows = [
        {
            **defaults,
            "key": f"{n}",
            "label": n % 3,
            "label_name": "abc"[n % 3],
            "end_seconds": n / 2,
            "start_seconds": 0.5,
            "width": 426,
            "height": 240,
        }
        for n in range(6)
    ]
    rows[5] |= {"label_name": None, "end_seconds": None}
    write_samples(tmp_path, rows)
    return tmp_path


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("label == 1", [1, 4]),
        ("label_name in ('a', 'b')", [0, 1, 3, 4]),
        ("label_name in ('a')", [0, 3]),
        ("label_name not in ['a', 'b'] and label >= 0", [2]),
        ("not (label_name in ('a', 'b'))", [2]),
        ("0.5 < end_seconds <= 2", [2, 3, 4]),
        ("end_seconds - start_seconds > 0.9", [3, 4]),
        ("label / 2 == 0.5", [1, 4]),
        ("width / height > 1.5 and height / width < 1 and label == 0", [0, 3]),
        ("1 / 2 * width == 213 and end_seconds / 2 == 1", [4]),
        ("not (label == 1 or label == 2)", [0, 3]),
        ("label_name is None", [5]),
        ("label_name is not None and label != -1", [0, 1, 2, 3, 4]),
        ("end_seconds >= -1e3", [0, 1, 2, 3, 4]),
    ],
)
def test_conditions_select_rows(folder: Path, where: str, expected: list[int]) -> None:
    assert matching_rows(folder, where).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lable == 1", "no column 'lable'; did you mean label"),
        ("label = 1", "equality is =="),
        ("label", "label is not a comparison"),
        ("__import__('os').system('true') == 0", "neither a column nor a number"),
        ("label == (lambda: 1)()", "neither a column nor a number"),
        ("label_name == 'a'.upper()", "neither a column nor a number"),
        ("label is 1", "only None can stand"),
        ("label_name / 2 == 1", "can't be evaluated"),
        ("label == 'a'", "can't be evaluated.*label is int32"),
        ("label in ('a', 1)", "numbers or strings have to stand"),
        ("label_name in ('a', label)", "neither a column nor a number|column"),
        ("", "where: ''"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(folder: Path, where: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        matching_rows(folder, where)
