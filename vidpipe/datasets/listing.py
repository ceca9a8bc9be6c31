"""From annotation rows to a `Listing`: duplicates, missing files, contradictions and unknown labels are found here."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vidpipe.datasets.annotations import Findings, clean_label, read_lines
from vidpipe.datasets.base import Listing, Video
from vidpipe.datasets.tree import SourceTree, is_video
from vidpipe.errors import DatasetError
from vidpipe.recipes import nearest

_ALWAYS_SHOWN = ("missing", "duplicates", "extra_videos", "other_files")


class ListingBuilder:
    """Collects a format's rows and makes the listing of them.

    Args:
        tree: the source folder's files.
        classes: the option of that name of `DatasetFormat`: a file with one class name a line.
    """

    def __init__(self, tree: SourceTree, *, classes: str | None) -> None:
        self._tree = tree
        self._counts: Counter[str] = Counter(dict.fromkeys(_ALWAYS_SHOWN, 0))
        self._notes: list[str] = []
        self._first_bad_row = ""
        self._class_list = read_classes(tree, classes, self) if classes else None
        self._rows: dict[tuple[str, str], tuple[str | None, str]] = {}
        self._first: dict[str, tuple[str | None, str]] = {}
        self._used: set[str] = set()

    @property
    def class_list(self) -> tuple[str, ...] | None:
        """The names of the user's class list, in order, if there is one."""
        return self._class_list

    @property
    def labels(self) -> set[str]:
        """Those that occur."""
        return {label for label, _ in self._rows.values() if label is not None}

    def add(self, path: str, label: str | None, *, split: str, where: str) -> None:
        """Take one row; one without a label is bad if its split is trained or scored on.

        Args:
            path: relative to the source folder, as `SourceTree.relative` gives it.
            where: file and line, for errors.

        Raises:
            DatasetError: the video has another label elsewhere.
        """
        label = clean_label(label) if label is not None else None
        if not label:
            if split in {"train", "val"}:
                self.bad_row(where, f"{path!r} has no label; only splits other than train and val can do without")
                return
            label = None
        other, first = self._first.setdefault(path, (label, where))
        if other is not None and label is not None and other != label:
            raise DatasetError(
                f"{path!r} has two labels: {other!r} in {first}, {label!r} in {where}; remove one of them"
            )
        if (path, split) in self._rows:
            self._counts["duplicates"] += 1
            return
        self._rows[path, split] = (label, where)

    def ignore(self, paths: Iterable[str]) -> None:
        """Files that belong to the data set, although no video of the listing: not to be counted as extra."""
        self._used.update(paths)

    def ignore_tables(self, tables: Iterable[Path]) -> None:
        """Annotation files that were read: not to be counted as other files."""
        inside = [path.relative_to(self._tree.root) for path in tables if path.is_relative_to(self._tree.root)]
        self.ignore(path.as_posix() for path in inside)

    def count(self, name: str, number: int = 1) -> None:
        """Add to the findings of that name."""
        self._counts[name] += number

    def bad_row(self, where: str, problem: str) -> None:
        """Leave a row out that can't be read.

        Args:
            where: file and line.
        """
        self._counts["bad_rows"] += 1
        self._first_bad_row = self._first_bad_row or f"{where}: {problem}"

    def note(self, text: str) -> None:
        """Add a sentence for people."""
        self._notes.append(text)

    def build(
        self,
        *,
        classes: Iterable[str] | None = None,
        sort_key: Callable[[str], Any] | None = None,
        expected_classes: int | None = None,
    ) -> Listing:
        """The listing.

        Args:
            classes: the data set's own classes in label order; by default the labels that occur, sorted. The user's
                class list wins.
            sort_key: how to sort the labels that occur, when neither the user nor the data set gives an order.
            expected_classes: a note says so when their number is another.

        Raises:
            DatasetError: there are no videos, none of them is there, more rows are bad than good, or a label is not among the
                classes.
        """
        bad = self._counts["bad_rows"]
        good = len(self._rows) + self._counts["duplicates"]
        if bad > good:
            others = f" (and {bad - 1} more rows can't be read either; only {good} can)" if bad > 1 else ""
            raise DatasetError(f"{self._first_bad_row}{others}")
        videos = [Video(path, label, split) for (path, split), (label, _) in self._rows.items()]
        videos.sort(key=lambda video: (video.split, video.path))
        if not videos:
            raise DatasetError(f"source {self._tree.root}: no video is annotated")
        found = tuple(video for video in videos if video.path in self._tree)
        missing = tuple(video for video in videos if video.path not in self._tree)
        if not found:
            raise DatasetError(
                f"source {self._tree.root}: none of the {len(videos)} annotated videos is there; the first is "
                f"{videos[0].path!r}{self._alike(videos[0].path)}, from {self._rows[videos[0].path, videos[0].split][1]}"
            )
        names = self._classes(classes, sort_key)
        if expected_classes not in {None, len(names)}:
            self.note(f"there are {len(names)} classes, but {expected_classes} were expected")
        self._count_files(videos)
        self._counts["in_several_splits"] = self._num_in_several_splits()
        self._counts["missing"] = len(missing)
        untrained = self._untrained()
        self._counts["classes_without_train"] = len(untrained)
        annotated = {video.path for video in missing}
        broken = [path for path in self._tree.broken_links if path not in annotated]
        self._counts["broken_links"] = len(broken)
        return Listing(
            root=self._tree.root,
            videos=found,
            missing=missing,
            classes=names,
            counts={name: number for name, number in self._counts.items() if number or name in _ALWAYS_SHOWN},
            notes=tuple(clean_label(note) for note in (*self._notes, *self._sentences(missing, broken, untrained))),
        )

    def _classes(self, given: Iterable[str] | None, sort_key: Callable[[str], Any] | None) -> tuple[str, ...]:
        labels = self.labels
        ordered = self._class_list if self._class_list is not None else None if given is None else tuple(given)
        if ordered is None:
            return tuple(sorted(labels, key=sort_key))
        known = set(ordered)
        for (path, _), (label, where) in self._rows.items():
            if label is not None and label not in known:
                raise DatasetError(
                    f"{where}: label {label!r} of {path!r} is not in the class list of {len(ordered)}"
                    f"{nearest(label, ordered)}"
                )
        unseen = len(known - labels)
        if unseen:
            self._counts["classes_without_videos"] = unseen
        return ordered

    def _count_files(self, videos: list[Video]) -> None:
        used = self._used.union(video.path for video in videos)
        for path in self._tree.files:
            if path not in used:
                self._counts["extra_videos" if is_video(path) else "other_files"] += 1

    def _alike(self, missing: str) -> str:
        """For people: a video whose name differs from a missing one's in folder, case or extension alone."""
        name = posixpath.basename(missing).casefold()
        stems = {name, posixpath.splitext(name)[0]}
        alike = (
            path
            for path in self._tree.files
            if is_video(path) and posixpath.splitext(posixpath.basename(path).casefold())[0] in stems
        )
        found = next(alike, None)
        return f" (there is {found!r})" if found else ""

    def _untrained(self) -> list[str]:
        """Classes that have videos, but none in train, where train has any."""
        trained = {label for (_, split), (label, _) in self._rows.items() if split == "train"}
        return sorted(self.labels - trained) if trained else []

    def _num_in_several_splits(self) -> int:
        """Rows of a file, under this path or another that links to it, that an earlier row has in another split."""
        split_of: dict[str, str] = {}
        return sum(split_of.setdefault(self._tree.file_of(path), split) != split for path, split in self._rows)

    def _sentences(self, missing: Sequence[Video], broken: Sequence[str], untrained: Sequence[str]) -> Iterable[str]:
        if missing:
            first = missing[0].path
            yield f"{len(missing)} annotated videos are not in the folder, the first is {first!r}{self._alike(first)}"
        if broken:
            yield f"{len(broken)} links lead nowhere and are left out, the first is {broken[0]!r}"
        if self._counts["bad_rows"]:
            yield f"{self._counts['bad_rows']} rows can't be read and are left out, the first is {self._first_bad_row}"
        if self._counts["duplicates"]:
            yield f"{self._counts['duplicates']} rows repeat an earlier one and were counted once"
        if self._counts["in_several_splits"]:
            yield f"{self._counts['in_several_splits']} videos stand in more than one split: results on it will mislead"
        if self._counts["extra_videos"]:
            yield f"{self._counts['extra_videos']} video files in the folder have no annotation and are left out"
        if self._counts["classes_without_videos"]:
            yield f"{self._counts['classes_without_videos']} classes have no annotated video"
        if untrained:
            yield f"{len(untrained)} classes have videos, but none in train to learn from; the first is {untrained[0]!r}"


def read_classes(tree: SourceTree, value: str, findings: Findings) -> tuple[str, ...]:
    """The class names of a user's class list, in order.

    Raises:
        DatasetError: the file is missing or empty, or a name stands twice.
    """
    path = tree.find("classes", value)
    seen: dict[str, int] = {}
    for number, line in read_lines(path, findings):
        name = clean_label(line)
        if name in seen:
            raise DatasetError(f"{path} line {number}: class {name!r} stands already in line {seen[name]}")
        seen[name] = number
    if not seen:
        raise DatasetError(f"{path}: empty; expected one class name a line, in label order")
    return tuple(seen)
