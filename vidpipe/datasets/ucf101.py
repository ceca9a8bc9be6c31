"""UCF101: class folders, and three official train/test splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from vidpipe.datasets.annotations import Findings, clean_label, read_lines
from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_TABLE = r"(classInd|trainlist0[123]|testlist0[123])\.txt"


class UCF101(DatasetFormat):
    """UCF101: CLASS/v_CLASS_gNN_cNN.avi with classInd.txt, trainlist0N.txt, testlist0N.txt; the test list is split val.

    Attributes:
        fold: which of the three official splits.
        annotations: folder of the lists; by default they are looked for in the source folder.
        num_classes: what is expected, for a warning.
    """

    fold: Literal[1, 2, 3] = 1
    annotations: str | None = None
    num_classes: int | None = Field(None, ge=1)

    def scan(self, source: Path) -> Listing:
        """Read the fold's two lists; the label order is that of classInd.txt."""
        tree = SourceTree(source, self.link_targets)
        tables = tree.tables(_TABLE, annotations=self.annotations)
        names = {"train": f"trainlist0{self.fold}", "val": f"testlist0{self.fold}"}
        lacking = [name for name in ("classind", *names.values()) if name not in tables]
        if lacking:
            shown = ", ".join(f"{name.replace('classind', 'classInd')}.txt" for name in lacking)
            raise DatasetError(f"source {tree.root}: no {shown} in it; `annotations` can name the folder of the lists")
        builder = ListingBuilder(tree, classes=self.classes)
        classes = _read_classes(tables["classind"], builder)
        files = tree.videos_by(lambda path: "/".join(PurePosixPath(path).parts[-2:]))
        names_of_classes = set(classes.values())
        flat = tree.videos_by(
            lambda path: None if PurePosixPath(path).parent.name in names_of_classes else PurePosixPath(path).name
        )
        for split, name in names.items():
            for where, path, label in _read_list(tables[name], classes, builder):
                found = files.get(path) or flat.get(PurePosixPath(path).name) or [tree.relative(path, where=where)]
                builder.add(found[0], label, split=split, where=where)
        builder.ignore_tables(tables.values())
        builder.note(f"official split {self.fold}; its test list is the split val")
        return builder.build(classes=classes.values(), expected_classes=self.num_classes)


def _read_classes(path: Path, findings: Findings) -> dict[int, str]:
    """Class names by their numbers, which begin at 1, in order."""
    classes: dict[int, str] = {}
    for line_number, line in read_lines(path, findings):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise DatasetError(f"{path.name} line {line_number}: {line!r}: expected NUMBER NAME")
        classes[int(number)] = clean_label(name)
    if sorted(classes) != list(range(1, len(classes) + 1)):
        raise DatasetError(f"{path}: its numbers are not 1 to {len(classes)}, once each")
    return dict(sorted(classes.items()))


def _read_list(path: Path, classes: dict[int, str], findings: Findings) -> Iterator[tuple[str, str, str]]:
    """(where, path, class name) of each line; the class is the folder's, and the number, if there is one, has to agree."""
    names = set(classes.values())
    for line_number, line in read_lines(path, findings):
        where = f"{path.name} line {line_number}"
        video, _, number = line.rpartition(" ")
        if not video or not number.isdecimal():
            video, number = line, ""
        folder = clean_label(PurePosixPath(video).parent.name)
        label = classes.get(int(number), folder) if number else folder
        if label != folder and folder in names:
            raise DatasetError(f"{where}: {video!r} has label {number}, which is {label!r} in classInd.txt")
        yield where, video.strip(), label
