"""A CSV file beside the videos: path, label and, if wanted, split."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import field_validator

from vidpipe.datasets.annotations import DELIMITERS, read_csv
from vidpipe.datasets.base import DatasetFormat, Listing, split_name
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree

_WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)


class Csv(DatasetFormat):
    """A CSV file with a header: path,label[,split]; without a split everything is train.

    Attributes:
        annotations: the CSV file, relative to the source folder (or absolute).
        delimiter: one character, or `tab`.
    """

    annotations: str = "labels.csv"
    delimiter: str = ","

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = DELIMITERS.get(value, value)
        if len(value) != 1 or value in '"\r\n':
            raise ValueError("expected one character, or tab")
        return value

    def scan(self, source: Path) -> Listing:
        """Read the file; the labels, sorted, are the classes: whole numbers by their values if all of them are, else as text."""
        tree = SourceTree(source, self.link_targets)
        annotations = tree.find("annotations", self.annotations)
        builder = ListingBuilder(tree, classes=self.classes)
        builder.ignore_tables([annotations])
        table = read_csv(annotations, builder, required=("path", "label"), delimiter=self.delimiter)
        columns: Iterable[str] = ()
        for where, row in table:
            columns = row
            path = row["path"] if row["path"] in tree else row["path"].strip()
            if not path:
                builder.bad_row(where, "the path is empty")
                continue
            builder.add(
                tree.relative(path, where=where),
                row["label"],
                split=split_name(row.get("split", ""), where=where),
                where=where,
            )
        if unread := [name for name in columns if name not in {"path", "label", "split", ""}]:
            builder.note(f"columns other than path, label and split are not read: {', '.join(unread)}")
        labels = builder.labels
        if builder.class_list is not None or not all(_WHOLE_NUMBER.fullmatch(label) for label in labels):
            return builder.build()
        if {int(label) for label in labels} != set(range(len(labels))):
            builder.note(
                f"the labels are numbers, but not 0 to {len(labels) - 1}: they name the classes, in their order"
            )
        return builder.build(sort_key=lambda label: (int(label), label))
