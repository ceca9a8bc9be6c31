"""All files below a source folder, listed once, and the guard that keeps annotated paths inside it."""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from vidpipe.datasets.base import VIDEO_EXTENSIONS, known_split
from vidpipe.errors import DatasetError


class SourceTree:
    """The files of a source folder as relative paths.

    The folder is walked once, without a `stat` per file, so that 650,000 videos on a network disk are listed in a
    reasonable time. Hidden files and folders are left out. Symbolic links are followed while they stay inside the
    folder, or lead into one of `link_targets`.

    Args:
        link_targets: absolute folders.

    Raises:
        DatasetError: the folder is missing, is no folder or can't be read.
    """

    def __init__(self, root: Path, link_targets: Sequence[str] = ()) -> None:
        if not root.is_dir():
            what = "is a file" if root.is_file() else "no such folder"
            raise DatasetError(f"source {root}: {what}; name the folder that holds the videos with --source")
        self.root = root.resolve()
        self._names = (str(self.root), str(root.absolute()))
        self._inside = [str(self.root), *(os.path.realpath(target) for target in link_targets)]
        self._outside: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._folders: list[str] = []
        self._files: set[str] = set(self._walk("", ancestors=(str(self.root),)))

    def __contains__(self, path: str) -> bool:
        return path in self._files

    @functools.cached_property
    def files(self) -> list[str]:
        """Relative paths of all files, sorted."""
        return sorted(self._files)

    @property
    def folders(self) -> list[str]:
        """Relative paths of all folders, sorted."""
        return sorted(self._folders)

    @property
    def broken_links(self) -> list[str]:
        """Relative paths of the links that lead nowhere, sorted."""
        return sorted(self._broken)

    @property
    def named_videos(self) -> list[str]:
        """`videos`, and the links that are named like one but lead to no file, sorted: what formats take that go by the files."""
        return sorted((*self.videos, *filter(is_video, self._broken)))

    @functools.cached_property
    def videos(self) -> list[str]:
        """Relative paths of the files that have a video's extension, sorted.

        Raises:
            DatasetError: a video, or a folder, is a link that leaves the source folder, or what may be a folder is one that
                leads nowhere.
        """
        for path, target in sorted(self._outside.items()):
            if is_video(path) or Path(target).is_dir():
                raise self._leaves(path, where="source")
        for path, target in sorted(self._broken.items()):
            if not posixpath.splitext(path)[1]:
                raise DatasetError(
                    f"source: {path!r} is a link to {target}, which isn't there: if it is a folder, all videos in it would be left "
                    "out; bring it back (is its disk mounted?), or remove the link"
                )
        return [path for path in self.files if is_video(path)]

    def file_of(self, path: str) -> str:
        """What tells a video's file from others: its path without links, relative if it is inside the folder, else absolute."""
        if not self._links:
            return path
        for part in (path, *(str(parent) for parent in PurePosixPath(path).parents)):
            if part in self._links:
                return self._links[part] + path[len(part) :]
        return path

    def relative(self, text: str, *, where: str) -> str:
        """An annotated path as a plain relative one, whether or not there is such a file.

        Args:
            text: relative to the source folder, or an absolute path inside it.
            where: file and line, for the error.

        Raises:
            DatasetError: it is empty, or leads out of the source folder, be it through `..` or a link.
        """
        if not text or "\0" in text:
            raise DatasetError(f"{where}: the path is {'empty' if not text else repr(text)}; expected a file's path")
        inside = text
        if text.startswith("/"):
            inside = next((posixpath.relpath(text, name) for name in self._names if _is_below(text, name)), text)
        path = posixpath.normpath(inside)
        if path.startswith("/") or path in {".", ".."} or path.startswith("../"):
            raise DatasetError(
                f"{where}: path {text!r} is not inside the source folder {self.root}; expected a path relative to it"
            )
        for part in (path, *(str(parent) for parent in PurePosixPath(path).parents)):
            if part in self._outside:
                raise self._leaves(part, where=where)
        return path

    def find(self, option: str, value: str) -> Path:
        """A file that an option names: relative to the source folder, or absolute, which the user may choose freely.

        Raises:
            DatasetError: there is no such file.
        """
        path = self.root / Path(value).expanduser()
        if not path.is_file():
            raise DatasetError(
                f"{option}: no file {path}; expected a path relative to the source folder, or an absolute one"
            )
        return path

    def videos_by(self, key: Callable[[str], str | None]) -> dict[str, list[str]]:
        """Videos grouped by a key of their paths, in order; those with the key None are left out."""
        groups: dict[str, list[str]] = {}
        for path in self.videos:
            if (value := key(path)) is not None:
                groups.setdefault(value, []).append(path)
        return groups

    def tables(self, pattern: str, *, annotations: str | None) -> dict[str, Path]:
        """Annotation files by what the pattern's first group matches in their names, lower case.

        Args:
            pattern: has to match a whole file name, ignoring case.
            annotations: the option of that name: their folder, relative to the source folder or absolute. By default
                they are looked for in the whole source folder.

        Raises:
            DatasetError: there is no such folder, or two different files match as the same table.
        """
        if annotations is None:
            paths = [self.root / path for path in self.files if not is_video(path)]
        else:
            folder = self.root / Path(annotations).expanduser()
            if not folder.is_dir():
                raise DatasetError(f"annotations: no folder {folder}; expected one that holds the annotation files")
            paths = sorted(path for path in folder.iterdir() if path.is_file())
        found: dict[str, Path] = {}
        for path in paths:
            match = re.fullmatch(pattern, path.name, re.IGNORECASE)
            if match is None:
                continue
            name = match[1].lower()
            other = found.setdefault(known_split(name) or name, path)
            if other != path and other.read_bytes() != path.read_bytes():
                raise DatasetError(
                    f"annotations: {other} and {path} differ, and could both be the right one; "
                    "set annotations to the folder of one of them"
                )
        return found

    def _leaves(self, path: str, *, where: str) -> DatasetError:
        return DatasetError(
            f"{where}: {path!r} is a link to {self._outside[path]}, outside the source folder {self.root}; "
            "if links may lead to that folder, say so with --set 'link_targets=[FOLDER]'"
        )

    def _walk(self, folder: str, *, ancestors: tuple[str, ...]) -> Iterator[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                children = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise DatasetError(f"source folder {self.root / folder}: can't be listed: {error.strerror}") from error
        for entry in children:
            path = f"{folder}/{entry.name}" if folder else entry.name
            real = os.path.realpath(entry.path) if entry.is_symlink() else f"{ancestors[-1]}/{entry.name}"
            if real in ancestors:
                continue
            if entry.is_symlink() and not _exists(real, path=path):
                self._broken[path] = real
            elif not any(real == folder or _is_below(real, folder) for folder in self._inside):
                self._outside[path] = real
            else:
                if entry.is_symlink():
                    self._links[path] = posixpath.relpath(real, self.root) if _is_below(real, str(self.root)) else real
                if entry.is_dir():
                    self._folders.append(path)
                    yield from self._walk(path, ancestors=(*ancestors, real))
                elif entry.is_file():
                    yield path


def _exists(target: str, *, path: str) -> bool:
    try:
        return Path(target).exists()
    except OSError as error:
        raise DatasetError(
            f"source: {path!r} is a link to {target}, which can't be looked at: {error.strerror}; grant access, or remove the link"
        ) from error


def is_video(path: str) -> bool:
    """Whether the file's extension is that of a video."""
    return posixpath.splitext(path)[1].lower() in VIDEO_EXTENSIONS


def _is_below(path: str, folder: str) -> bool:
    return posixpath.normpath(path).startswith(folder.rstrip("/") + "/")
