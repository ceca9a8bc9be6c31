"""Which videos a benchmark works on, laid out in a folder of its own as often as it needs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vidpipe.bench.selection import warm_up
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

CLASS_FOLDER = "videos"


def choose_videos(source: Path, *, limit: int) -> tuple[list[str], int]:
    """Paths of at most `limit` videos below a folder, spread evenly over all of them in the order of their names.

    Returns:
        the paths, relative to the folder, and how many videos there are in all.

    Raises:
        DatasetError: there is no such folder, or no video in it.
    """
    found = SourceTree(source).videos
    if not found:
        raise DatasetError(f"source {source}: no video files in it")
    count = min(limit, len(found))
    return [found[number * len(found) // count] for number in range(count)], len(found)


def lay_out(source: Path, videos: Sequence[str], folder: Path, *, copies: int) -> dict[str, str]:
    """Make `folder` a class folder of the videos, each `copies` times under other names, with all in the page cache.

    Files are linked, or copied where they can't be. prep cuts another clip from each copy, as its path is another.

    Returns:
        the path of each file in `folder`, and of the video that it is.
    """
    (folder / CLASS_FOLDER).mkdir(parents=True)
    placed = {}
    for copy in range(copies):
        for number, video in enumerate(videos):
            path = f"{CLASS_FOLDER}/{copy:03d}-{number:06d}{Path(video).suffix.lower()}"
            _link(source / video, folder / path)
            placed[path] = video
    for video in videos:
        warm_up(source / video)
    return placed


def _link(source: Path, target: Path) -> None:
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
