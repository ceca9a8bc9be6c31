"""HMDB51: class folders, and three official splits that leave some clips unused."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from vidpipe.datasets.annotations import read_lines
from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_SPLITS = {"1": "train", "2": "val", "0": None}


class HMDB51(DatasetFormat):
    """HMDB51: CLASS/video.avi with CLASS_test_splitN.txt; test clips are split val, unused ones are left out.

    Attributes:
        fold: which of the three official splits.
        annotations: folder of the lists; by default they are looked for in the source folder.
        num_classes: what is expected, for a warning.
    """

    fold: Literal[1, 2, 3] = 1
    annotations: str | None = None
    num_classes: int | None = Field(None, ge=1)

    def scan(self, source: Path) -> Listing:
        """Read the fold's list of each class; the labels, sorted, are the classes."""
        tree = SourceTree(source, self.link_targets)
        tables = tree.tables(rf"(.+)_test_split{self.fold}\.txt", annotations=self.annotations)
        if not tables:
            raise DatasetError(
                f"source {tree.root}: no CLASS_test_split{self.fold}.txt in it; `annotations` can name their folder"
            )
        files = tree.videos_by(lambda path: "/".join(PurePosixPath(path).parts[-2:]))
        flat = tree.videos_by(lambda path: _name_unless_in(path, set(tables)))
        builder = ListingBuilder(tree, classes=self.classes)
        unused = 0
        for label, table in sorted(tables.items()):
            for number, line in read_lines(table, builder):
                where = f"{table.name} line {number}"
                name, _, use = line.rpartition(" ")
                if use not in _SPLITS or not name.strip():
                    builder.bad_row(where, f"{line!r}: expected FILE and 1 (train), 2 (test) or 0 (unused)")
                    continue
                wanted = f"{label}/{name.strip()}"
                path = (files.get(wanted) or flat.get(name.strip()) or [tree.relative(wanted, where=where)])[0]
                split = _SPLITS[use]
                if split is None:
                    unused += 1
                    builder.ignore([path])
                else:
                    builder.add(path, label, split=split, where=where)
        builder.ignore(path for path in tree.files if PurePosixPath(path).match("*_test_split[123].txt"))
        builder.count("unused", unused)
        builder.note(f"official split {self.fold}; its test clips are the split val, {unused} clips are in neither")
        return builder.build(expected_classes=self.num_classes)


def _name_unless_in(path: str, class_folders: set[str]) -> str | None:
    """The file's name, for videos that are not in the folder of any class."""
    parent, name = PurePosixPath(path).parent.name, PurePosixPath(path).name
    return None if parent.lower() in class_folders else name
