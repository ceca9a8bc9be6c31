"""Class folders: the folder that a video lies in is its label."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vidpipe.datasets.base import DatasetFormat, Listing, known_split, split_name
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree, is_video
from vidpipe.errors import DatasetError

_KINDS_SHOWN = 5


class Folder(DatasetFormat):
    """Class folders, root/SPLIT/CLASS/video or root/CLASS/video (then everything is train).

    Attributes:
        layout: `split` or `class` for the two layouts above; `auto` takes the first when the folders on top are named
            like splits. Videos in deeper folders belong to their class.
    """

    layout: Literal["auto", "split", "class"] = "auto"

    def scan(self, source: Path) -> Listing:
        """Find the videos; the labels are the names of the class folders."""
        tree = SourceTree(source, self.link_targets)
        others = Counter(
            posixpath.splitext(path)[1].lower() or "no extension" for path in tree.files if not is_video(path)
        )
        kinds = ", ".join(f"{number} with {kind}" for kind, number in others.most_common(_KINDS_SHOWN))
        if not tree.named_videos:
            raise DatasetError(
                f"source {tree.root}: no video files in it{f' (but {kinds})' if kinds else ''}; expected CLASS/video.mp4 or "
                "train/CLASS/video.mp4; files with extensions that are no video's (.gif) need the csv or list recipe"
            )
        builder = list_folders(tree, layout=self.layout, classes=self.classes)
        if others:
            builder.note(f"{others.total()} files are left out, as their extensions are no video's: {kinds}")
        return builder.build()


def list_folders(tree: SourceTree, *, layout: Literal["auto", "split", "class"], classes: str | None) -> ListingBuilder:
    """The rows of a tree of class folders, see `Folder`.

    Raises:
        DatasetError: it can't be told which layout it is, or no video lies in a class folder.
    """
    depth = 2 if _has_splits(tree, layout) else 1
    builder = ListingBuilder(tree, classes=classes)
    stray: list[str] = []
    videos = tree.named_videos
    for path in videos:
        parts = path.split("/")
        if len(parts) <= depth:
            stray.append(path)
            continue
        split = split_name(parts[0], where=f"folder {parts[0]!r}") if depth == 2 else "train"
        builder.add(path, parts[depth - 1], split=split, where=f"folder {'/'.join(parts[:depth])!r}")
    empty = _empty_classes(tree, videos, depth)
    if empty:
        builder.count("folders_without_videos", len(empty))
        builder.note(f"{len(empty)} folders hold no video, so that they are no classes; the first is {empty[0]!r}")
    if len(stray) == len(videos):
        expected = "SPLIT/CLASS/video.mp4" if depth == 2 else "CLASS/video.mp4"
        raise DatasetError(
            f"source {tree.root}: its videos lie in no class folder, for instance {stray[0]!r}; expected {expected}, "
            "or use the csv recipe"
        )
    if stray:
        builder.count("without_class", len(stray))
        builder.ignore(stray)
        builder.note(f"{len(stray)} videos lie in no class folder and are left out, the first is {stray[0]!r}")
    return builder


def _empty_classes(tree: SourceTree, videos: Sequence[str], depth: int) -> list[str]:
    """Folders that would be classes, at their depth and, where that is 2, in a split's folder, but hold no video."""
    splits = {path.split("/")[0] for path in videos}
    classes = {tuple(path.split("/")[:depth]) for path in videos}
    folders = [folder.split("/") for folder in tree.folders]
    return [
        "/".join(parts)
        for parts in folders
        if len(parts) == depth and tuple(parts) not in classes and (depth == 1 or parts[0] in splits)
    ]


def _has_splits(tree: SourceTree, layout: str) -> bool:
    if layout != "auto":
        return layout == "split"
    paths = [path.split("/") for path in tree.named_videos if "/" in path]
    tops = {parts[0] for parts in paths}
    splits = {top for top in tops if known_split(top)}
    deep = {parts[0] for parts in paths if len(parts) > 2}
    if splits and splits == tops:
        if not deep:
            raise DatasetError(
                f"source {tree.root}: its folders {', '.join(sorted(splits))} look like splits, but hold videos instead of class "
                "folders; expected SPLIT/CLASS/video.mp4; if they are classes, set layout to class"
            )
        return True
    if splits & deep:
        raise DatasetError(
            f"source {tree.root}: folders {', '.join(sorted(splits))} look like splits, "
            f"but {', '.join(sorted(tops - splits)[:3])} does not; set layout to split or class"
        )
    below = {tuple(parts[:2]) for parts in paths if len(parts) > 2}
    if below and all(known_split(name) for _, name in below):
        top, name = min(below)
        raise DatasetError(
            f"source {tree.root}: folders below the first ones look like splits, such as {f'{top}/{name}'!r}; expected "
            f"SPLIT/CLASS/video.mp4{f' in it: name {tree.root / top} with --source' if len(tops) == 1 else ''}, or, if they belong "
            "to classes, --set layout=class"
        )
    return False
