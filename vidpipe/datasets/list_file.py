"""Lists of `path label` lines without a header, one file for each split, as VideoMAE and SlowFast read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from vidpipe.datasets.annotations import DELIMITERS, clean_label, read_lines
from vidpipe.datasets.base import DatasetFormat, Listing, split_name
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_MOST_CLASSES = 100_000
_NO_LABEL = "-1"
_QUOTED = r'"((?:[^"]|"")*)"'


class ListFile(DatasetFormat):
    """Lists with a line `path label` for each video and no header, as VideoMAE and SlowFast read them; a file per split.

    Labels may be numbers: then they index the class list, or, without one, are the names themselves, and all have to be numbers;
    -1 is no label. Paths and labels may stand in quotes, as pandas writes those with spaces.

    Attributes:
        lists: split to file; the files are relative to the source folder, as are the paths in them.
        separator: what stands between path and label; the last one in a line counts, so that paths may hold it.
        strip_prefix: what to remove from the front of each path, for lists that were written on another machine.
    """

    format_name: ClassVar[str | None] = "list"

    lists: Mapping[str, str | None] = Field({"train": "train.csv", "val": "val.csv"}, min_length=1)
    separator: str = Field(" ", min_length=1)
    strip_prefix: str = ""

    @field_validator("separator")
    @classmethod
    def _named(cls, value: str) -> str:
        return DELIMITERS.get(value, value)

    def scan(self, source: Path) -> Listing:
        """Read the lists."""
        tree = SourceTree(source, self.link_targets)
        builder = ListingBuilder(tree, classes=self.classes)
        class_list = builder.class_list
        first_of: dict[bool, tuple[str, str]] = {}  # the first label that is a number, and the first that is none
        for name, value in self.lists.items():
            if value is None:
                continue
            table = tree.find(f"lists.{name}", value)
            builder.ignore_tables([table])
            split = split_name(name, where="lists")
            for number, line in read_lines(table, builder):
                where = f"{table.name} line {number}"
                path, label = self._fields(line, tree=tree, builder=builder)
                if not path or not label:
                    problem = f"{line!r}: expected a path, {self.separator!r} and a label; see `separator`"
                    builder.bad_row(where, problem)
                    continue
                if label != _NO_LABEL:
                    first_of.setdefault(label.isdecimal(), (label, where))
                if class_list is not None and label.isdecimal():
                    label = _class_name(int(label), class_list, where=where)
                given = None if label == _NO_LABEL else label
                builder.add(tree.relative(path, where=where), given, split=split, where=where)
        if class_list is None and len(first_of) > 1:
            raise _numbers_and_names(number=first_of[True], name=first_of[False])
        labels = builder.labels
        if class_list is None and all(label.isdecimal() for label in labels):
            last = max((int(label) for label in labels), default=-1)
            if last >= _MOST_CLASSES:
                raise DatasetError(f"lists: label {last}: expected class numbers below {_MOST_CLASSES}")
            return builder.build(classes=map(str, range(last + 1)))
        return builder.build()

    def _fields(self, line: str, *, tree: SourceTree, builder: ListingBuilder) -> tuple[str, str]:
        """Path and label of a line, empty where it has none."""
        quoted = re.fullmatch(rf"(.*){re.escape(self.separator)} *{_QUOTED}", line, re.DOTALL)
        path, label = quoted.groups() if quoted else line.rpartition(self.separator)[::2]
        path = path if path in tree else path.strip()
        unquoted = None if path in tree else re.fullmatch(_QUOTED, path, re.DOTALL)
        if unquoted:
            path = unquoted[1].replace('""', '"')
        builder.count("quoted_values", bool(quoted) + bool(unquoted))
        if self.strip_prefix and path.startswith(self.strip_prefix):
            path = path.removeprefix(self.strip_prefix).lstrip("/")
        return path, _number(clean_label(label.replace('""', '"') if quoted else label))


def _number(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label


def _numbers_and_names(*, number: tuple[str, str], name: tuple[str, str]) -> DatasetError:
    return DatasetError(
        f"{name[1]}: label {name[0]!r} is no number from 0 on, but {number[0]} in {number[1]} is: without a class list numbers are "
        "the classes' places, so all labels have to be numbers, or none; remove the line if it is a header, or set `classes`"
    )


def _class_name(number: int, classes: tuple[str, ...], *, where: str) -> str:
    if number >= len(classes):
        raise DatasetError(
            f"{where}: label {number}: the class list has {len(classes)} names, so 0 to {len(classes) - 1}"
        )
    return classes[number]
