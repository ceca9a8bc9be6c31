"""A CSV file beside the videos: path, label and, if wanted, split."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from vidpipe.datasets.annotations import read_csv
from vidpipe.datasets.base import DatasetFormat, Listing, split_name
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree

_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}


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
        value = _NAMED_DELIMITERS.get(value, value)
        if len(value) != 1 or value in '"\r\n':
            raise ValueError("expected one character, or tab")
        return value

    def scan(self, source: Path) -> Listing:
        """Read the file; the labels, sorted, are the classes."""
        tree = SourceTree(source, self.link_targets)
        annotations = tree.find("annotations", self.annotations)
        builder = ListingBuilder(tree, classes=self.classes)
        builder.ignore_tables([annotations])
        for where, row in read_csv(annotations, required=("path", "label"), delimiter=self.delimiter):
            path = row["path"] if row["path"] in tree else row["path"].strip()
            builder.add(
                tree.relative(path, where=where),
                row["label"],
                split=split_name(row.get("split", ""), where=where),
                where=where,
            )
        return builder.build()
