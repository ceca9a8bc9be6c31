"""Kinetics-400, -600 and -700: annotation tables of DeepMind, files as CVDF or torchvision lay them out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from vidpipe.datasets.annotations import Findings, clean_label, read_csv
from vidpipe.datasets.base import DatasetFormat, Listing, known_split
from vidpipe.datasets.folder import list_folders
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_TABLE = r"(?:(?:kinetics|k)[-_]?\d*(?:[-_]2020)?[-_])?(train|val|validate|validation|test)\.(?:csv|txt)"
_FILE = re.compile(r"(?P<id>.{11})(?:_(?P<start>\d{1,6})_(?P<end>\d{1,6}))?", re.DOTALL)


class Kinetics(DatasetFormat):
    """Kinetics-400/600/700: tables train.csv, val.csv, test.csv and files ID_START_END.mp4, flat or in class folders.

    Without tables, SPLIT/CLASS/video as torchvision lays them out. Files below a folder whose name begins with
    `replacement` take the place of the clips of their name.

    Attributes:
        annotations: folder of the tables; by default they are looked for in the source folder.
        num_classes: what is expected, for a warning.
    """

    annotations: str | None = None
    num_classes: int | None = Field(None, ge=1)

    def scan(self, source: Path) -> Listing:
        """Match the tables' rows with the files; a label's number is its place among all labels, sorted."""
        tree = SourceTree(source, self.link_targets)
        tables = tree.tables(_TABLE, annotations=self.annotations)
        if tables:
            builder = self._match(tree, tables)
        elif tree.videos and all("/" in path for path in tree.videos):
            builder = list_folders(tree, layout="split", classes=self.classes)
            builder.note("there are no annotation tables; labels are the names of the class folders")
        else:
            raise DatasetError(
                f"source {tree.root}: no annotation tables; expected train.csv, val.csv or test.csv in it, "
                "or `annotations` to name their folder"
            )
        if self.num_classes == 700:
            builder.note("much of Kinetics-400's val is in Kinetics-700's train: don't score on one what saw the other")
        return builder.build(expected_classes=self.num_classes)

    def _match(self, tree: SourceTree, tables: dict[str, Path]) -> ListingBuilder:
        builder = ListingBuilder(tree, classes=self.classes)
        clips = [clip for split, path in sorted(tables.items()) for clip in _read(path, split, builder)]
        finder = _Finder(tree, clips)
        for clip in clips:
            builder.add(finder.paths.get(clip.key) or clip.file_name, clip.label, split=clip.split, where=clip.where)
        builder.ignore_tables(tables.values())
        builder.ignore(finder.superseded)
        if finder.num_replaced:
            builder.count("replaced", finder.num_replaced)
            builder.note(f"{finder.num_replaced} clips are read from the replacement folder")
        if finder.num_other_times:
            builder.count("other_times", finder.num_other_times)
            builder.note(f"{finder.num_other_times} clips were found by their id alone: their files give other times")
        return builder


@dataclass(frozen=True, slots=True)
class _Clip:
    youtube_id: str
    start_seconds: int
    end_seconds: int
    label: str | None
    split: str
    where: str

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.split, self.youtube_id, self.start_seconds, self.end_seconds

    @property
    def file_name(self) -> str:
        return f"{self.split}/{self.youtube_id}_{self.start_seconds:06d}_{self.end_seconds:06d}.mp4"


def _read(table: Path, split: str, findings: Findings) -> Iterator[_Clip]:
    required = ("youtube_id", "time_start", "time_end") if split == "test" else _WITH_LABEL
    for where, row in read_csv(table, findings, required=required):
        youtube_id = row["youtube_id"].strip()
        if "/" in youtube_id or "\0" in youtube_id:
            raise DatasetError(f"{where}: youtube_id {youtube_id!r}: expected the 11 characters of a YouTube id")
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
        except (ValueError, OverflowError):
            times = f"time_start {row['time_start']!r}, time_end {row['time_end']!r}"
            findings.bad_row(where, f"{times}: expected seconds")
            continue
        if not youtube_id:
            findings.bad_row(where, "the youtube_id is empty")
            continue
        yield _Clip(youtube_id, start, end, clean_label(row.get("label", "")) or None, split, where)


_WITH_LABEL = ("label", "youtube_id", "time_start", "time_end")


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    split: str | None
    replaces: bool
    start_seconds: int | None
    end_seconds: int | None

    def suits(self, clip: _Clip) -> bool:
        return self.split in {None, clip.split}

    def overlaps(self, clip: _Clip) -> bool:
        if self.start_seconds is None or self.end_seconds is None:
            return False
        return self.start_seconds < clip.end_seconds and clip.start_seconds < self.end_seconds

    def distance_seconds(self, clip: _Clip) -> int:
        return abs((self.start_seconds or 0) - clip.start_seconds)


class _Finder:
    """Which file is which clip: by id and times, else by id alone among the files that are no other clip's.

    An id with several annotated clips, which may have different labels, has to agree in time at least roughly.

    Attributes:
        paths: file of each clip's key, for the clips that have one.
        superseded: files that a replacement takes the place of.
    """

    def __init__(self, tree: SourceTree, clips: Iterable[_Clip]) -> None:
        self.paths: dict[tuple[str, str, int, int], str] = {}
        self.superseded: list[str] = []
        self.num_replaced = 0
        self.num_other_times = 0
        self._files: dict[str, list[_File]] = {}
        for path in tree.videos:
            self._add(path)
        by_id: dict[str, list[_Clip]] = {}
        for clip in {clip.key: clip for clip in clips}.values():
            by_id.setdefault(clip.youtube_id, []).append(clip)
        for youtube_id, same_id in by_id.items():
            files = self._files.get(youtube_id, [])
            exact = {file.path for clip in same_id for file in self._take_exact(clip, files)}
            left = [file for file in files if file.path not in exact]
            unmatched = [clip for clip in same_id if clip.key not in self.paths]
            self._take_nearest(unmatched, left, alone=len(same_id) == 1)

    def _add(self, path: str) -> None:
        match = _FILE.fullmatch(PurePosixPath(path).stem)
        if match is None:
            return
        folders = PurePosixPath(path).parts[:-1]
        split = next((name for folder in reversed(folders) if (name := known_split(folder))), None)
        replaces = any(folder.lower().startswith("replacement") for folder in folders)
        start, end = (int(match[name]) if match[name] else None for name in ("start", "end"))
        self._files.setdefault(match["id"], []).append(_File(path, split, replaces, start, end))

    def _take_exact(self, clip: _Clip, files: Iterable[_File]) -> list[_File]:
        times = (clip.start_seconds, clip.end_seconds)
        same = [file for file in files if (file.start_seconds, file.end_seconds) == times and file.suits(clip)]
        same.sort(key=lambda file: (not file.replaces, file.split is None, file.path))
        if same:
            self.paths[clip.key] = same[0].path
            self.num_replaced += same[0].replaces
            self.superseded += [file.path for file in same[1:] if same[0].replaces]
        return same

    def _take_nearest(self, clips: list[_Clip], files: list[_File], *, alone: bool) -> None:
        pairs = [(clip, file) for clip in clips for file in files if file.suits(clip)]
        pairs = [(clip, file) for clip, file in pairs if alone or file.overlaps(clip)]
        taken: set[str] = set()
        for clip, file in sorted(pairs, key=lambda pair: (pair[1].distance_seconds(pair[0]), pair[1].path)):
            if clip.key not in self.paths and file.path not in taken:
                self.paths[clip.key] = file.path
                taken.add(file.path)
                self.num_other_times += 1
                self.num_replaced += file.replaces
