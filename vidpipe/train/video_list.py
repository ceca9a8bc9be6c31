"""Which video files are meant: files as they are, folders searched, lists read as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import RawIOBase
from pathlib import Path

from vidpipe.datasets.base import VIDEO_EXTENSIONS
from vidpipe.errors import UsageError

STDIN = Path("-")
_BLOCK_BYTES = 1 << 16


def name_videos(paths: Sequence[Path], lists: Sequence[Path] = ()) -> Iterator[Path]:
    """The videos in the order in which they are named; a list is read on only as videos are asked for.

    Args:
        paths: files, folders, which stand for the video files in and below them, and `-` for a list on stdin.
        lists: files with a path on each line, or with a NUL behind each; a folder in them is searched too.

    Raises:
        UsageError: at once where nothing is named, a list is not there or a folder of `paths` has no video in it.
    """
    if not paths and not lists:
        raise UsageError("no videos given: name files or folders, - for a list on stdin, or --list FILE")
    for path in lists:
        if path != STDIN and not path.exists():
            raise UsageError(f"--list {path}: no such file")
    if [*paths, *lists].count(STDIN) > 1:
        raise UsageError("stdin can be read only once, but - is given more than once")
    named = [[path] if path == STDIN else _found(path) for path in paths]
    return _all(named, lists)


def _all(named: Sequence[Sequence[Path]], lists: Sequence[Path]) -> Iterator[Path]:
    for path in (path for group in named for path in group):
        if path == STDIN:
            yield from _listed(path)
        else:
            yield path
    for path in lists:
        yield from _listed(path)


def _found(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = _inside(path)
    if not inside:
        raise UsageError(f"{path}: no video files in this folder (known are {', '.join(sorted(VIDEO_EXTENSIONS))})")
    return inside


def read_list(stream: RawIOBase) -> Iterator[Path]:
    """The paths of a list as they come: one on each line, or, where there are NULs, one before each."""
    rest = stream.read(_BLOCK_BYTES) or b""
    separator = b"\0" if b"\0" in rest else b"\n"
    while True:
        *whole, rest = rest.split(separator)
        for name in whole:
            yield from _path(name, separator)
        block = stream.read(_BLOCK_BYTES)
        if not block:
            yield from _path(rest, separator)
            return
        rest += block


def _path(name: bytes, separator: bytes) -> Iterator[Path]:
    name = name.removesuffix(b"\r") if separator == b"\n" else name
    if name:
        yield Path(os.fsdecode(name))


def _listed(path: Path) -> Iterator[Path]:
    # Without a buffer, whose lock a thread that waits for more would hold when the process ends.
    source = sys.stdin.fileno() if path == STDIN else path
    with open(source, "rb", buffering=0, closefd=path != STDIN) as stream:
        yield from _searched(read_list(stream))


def _searched(paths: Iterable[Path]) -> Iterator[Path]:
    """A folder without videos is given as it is, and fails like a file that is no video."""
    for path in paths:
        yield from (_inside(path) or [path]) if path.is_dir() else [path]


def _inside(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_EXTENSIONS and not p.name.startswith("."))
    return sorted(path for path in found if path.is_file())
