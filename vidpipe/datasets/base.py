"""What every data-set format shares: the videos it finds, and the one method that finds them."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vidpipe.errors import DatasetError
from vidpipe.recipes import Section

#: What counts as a video when a folder is searched; a file that an annotation names may have any extension.
VIDEO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "3gp", "avi", "mkv", "webm", "ogv", "flv", "wmv"),
        *("mpg", "mpeg", "m2v", "vob", "ts", "mts", "m2ts", "mxf"),
    )
)

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Video:
    """One video to prepare.

    Attributes:
        path: relative to the listing's root, with `/`; bytes that are not UTF-8 are held as surrogates (PEP 383).
        label: class name; None where the data set gives none, as in some test splits.
        split: `train`, `val`, `test` or the data set's own name for it.
    """

    path: str
    label: str | None
    split: str


@dataclass(frozen=True)
class Listing:
    """What a format found. Every video that is annotated is in `videos` or in `missing`, once.

    Attributes:
        root: absolute folder that the paths are relative to.
        videos: annotated and there, sorted by split and path.
        missing: annotated, but not there, sorted likewise; to be recorded as rejects of stage `find`.
        classes: class names in label order.
        counts: findings by name, for instance `missing`, `duplicates`, `extra_videos`, `other_files`, `bad_rows`.
        notes: the same for people, one sentence each, without bytes that are not UTF-8.
    """

    root: Path
    videos: tuple[Video, ...]
    classes: tuple[str, ...]
    missing: tuple[Video, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold videos, `train` first, then `val` and `test`, then others by name."""
        first = {"train": 0, "val": 1, "test": 2}
        names = {video.split for video in (*self.videos, *self.missing)}
        return tuple(sorted(names, key=lambda name: (first.get(name, 3), name)))


def in_words(counts: Mapping[str, int]) -> tuple[str, ...]:
    """A listing's counts that aren't 0, for people: `crlf lines: 8`."""
    return tuple(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items() if count)


class DatasetFormat(Section, abc.ABC):
    """Base of all formats: a frozen set of options, and `scan`.

    Attributes:
        classes: file with one class name a line, which gives the label order; relative to the source folder, or
            absolute. By default the order is the data set's own, or else the labels sorted by code point.
        link_targets: absolute folders outside of the source folder into which links in it may lead, for data sets that are
            spread over several disks.
    """

    format_name: ClassVar[str | None] = None

    classes: str | None = None
    link_targets: tuple[str, ...] = Field((), exclude=True)  # says where the files are, not what they are

    @abc.abstractmethod
    def scan(self, source: Path) -> Listing:
        """Find the annotated videos under `source`. Nothing is decoded and no video is opened.

        Raises:
            DatasetError: the folder or its annotations can't be used; the message names file and line.
        """


def known_split(text: str) -> str | None:
    """`train`, `val` or `test` for these names and their usual variants (`Validation`, `valid`, ...), else None."""
    return _SPLIT_NAMES.get(text.strip().lower())


def split_name(text: str, *, where: str) -> str:
    """The name of a split: usual variants are unified (see `known_split`), others stay, and empty is `train`.

    Args:
        where: file and line, for the error.

    Raises:
        DatasetError: the name can't be that of a folder.
    """
    name = known_split(text) or text.strip() or "train"
    if not _SPLIT.fullmatch(name):
        raise DatasetError(
            f"{where}: split {text!r}: expected a name of letters, digits, - and _, such as train or val"
        )
    return name
