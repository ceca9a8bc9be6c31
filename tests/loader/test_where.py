"""Conditions on samples.parquet: what they select, and how a wrong one is answered."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from vidpipe.errors import UsageError
from vidpipe.loader.sampling.where import matching_rows
from vidpipe.shards.index import SCHEMA, SamplesFile, write_samples


@pytest.fixture
def samples(tmp_path: Path) -> SamplesFile:
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
    return SamplesFile(tmp_path)


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
        ("-label < 0 and -(label - 1) < +1", [1, 2, 4, 5]),
        (" or ".join(f"label == {n}" for n in range(1, 1001)), [1, 2, 4, 5]),
    ],
)
def test_conditions_select_rows(samples: SamplesFile, where: str, expected: list[int]) -> None:
    assert matching_rows(samples, where).nonzero()[0].tolist() == expected


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
        ("label in ()", r"\(\) after `in` is empty; name at least one value"),
        ("label < 1" + 30 * "0", "whole number of more than 64 bits"),
        ("label in (1, -1" + 30 * "0" + ")", "whole number of more than 64 bits"),
        ("label_name == '\\ud800'", "no text that a column could hold"),
        ("label" + 100 * " + 1" + " == 1", "more than 50 operators within each other"),
        (5000 * "-" + "1 < label", "where: "),
        (300 * "(" + "label == 1" + 300 * ")", "where: "),
        (" and ".join(5000 * ["label == 1"]), "more than 1000 comparisons; many values go behind one `in`"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(samples: SamplesFile, where: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        matching_rows(samples, where)
    assert len(str(caught.value)) < 1000
