"""Lists of `path label` lines without a header, one file for each split, as VideoMAE and SlowFast read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from vidpipe.datasets.annotations import clean_label, read_lines
from vidpipe.datasets.base import DatasetFormat, Listing, split_name
from vidpipe.datasets.listing import ListingBuilder, read_classes
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_MOST_CLASSES = 100_000


class ListFile(DatasetFormat):
    """Lists with a line `path label` for each video and no header, as VideoMAE and SlowFast read them; a file per split.

    Labels may be numbers: then they index the class list, or, without one, are the names themselves.

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
        return {"tab": "\t", "\\t": "\t", "comma": ",", "space": " "}.get(value, value)

    def scan(self, source: Path) -> Listing:
        """Read the lists."""
        tree = SourceTree(source, self.link_targets)
        class_list = read_classes(tree, self.classes) if self.classes else None
        builder = ListingBuilder(tree, classes=self.classes)
        labels: set[str] = set()
        for name, value in self.lists.items():
            if value is None:
                continue
            table = tree.find(f"lists.{name}", value)
            builder.ignore_tables([table])
            split = split_name(name, where="lists")
            for number, line in read_lines(table):
                where = f"{table.name} line {number}"
                path, label = self._fields(line, tree=tree, where=where)
                if class_list is not None and label.isdecimal():
                    label = _class_name(int(label), class_list, where=where)
                labels.add(label)
                builder.add(path, label, split=split, where=where)
        if class_list is None and all(label.isdecimal() for label in labels):
            last = max((int(label) for label in labels), default=-1)
            if last >= _MOST_CLASSES:
                raise DatasetError(f"lists: label {last}: expected class numbers below {_MOST_CLASSES}")
            return builder.build(classes=map(str, range(last + 1)))
        return builder.build()

    def _fields(self, line: str, *, tree: SourceTree, where: str) -> tuple[str, str]:
        path, separator, label = line.rpartition(self.separator)
        if not separator or not path.strip() or not label.strip():
            raise DatasetError(f"{where}: {line!r}: expected a path, {self.separator!r} and a label; see `separator`")
        path = path if path in tree else path.strip()
        if self.strip_prefix and path.startswith(self.strip_prefix):
            path = path.removeprefix(self.strip_prefix).lstrip("/")
        return tree.relative(path, where=where), _number(clean_label(label))


def _number(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label


def _class_name(number: int, classes: tuple[str, ...], *, where: str) -> str:
    if number >= len(classes):
        raise DatasetError(
            f"{where}: label {number}: the class list has {len(classes)} names, so 0 to {len(classes) - 1}"
        )
    return classes[number]
