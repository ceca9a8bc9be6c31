"""Headers of some videos of each split, chosen evenly, for estimates. No header can stop or hang it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from vidpipe.errors import VideoError
from vidpipe.video import header
from vidpipe.video.child import Child
from vidpipe.video.header import Header

SAMPLE_VIDEOS = 64
LEAST_OF_A_SPLIT = 4
SECONDS_A_HEADER = 10.0
SECONDS_ALTOGETHER = 60.0


@dataclass(frozen=True, slots=True)
class HeaderSample:
    """What was learned of some videos.

    Attributes:
        headers: by path, of those whose header could be read.
        unreadable: the others that prep will reject for what their header is.
        undecided: those whose header took too long, or killed its reader, or whose turn never came.
    """

    headers: Mapping[str, Header]
    unreadable: frozenset[str]
    undecided: frozenset[str]


def sample_headers(root: Path, splits: Mapping[str, Sequence[str]]) -> HeaderSample:
    """Read the headers of about `SAMPLE_VIDEOS` videos, in a child process that is killed if it takes too long.

    Args:
        root: what the paths are relative to.
        splits: paths of each split's videos, in an order that has nothing to do with what they are.

    Raises:
        VidpipeError: no header can be read at all here, for instance for a broken installation.
    """
    total = sum(len(paths) for paths in splits.values())
    chosen = [path for paths in splits.values() for path in _chosen(paths, total)]
    headers: dict[str, Header] = {}
    unreadable: set[str] = set()
    child: Child[Path, Header] = Child(header.main, timeout_seconds=SECONDS_A_HEADER, stop=Event())
    until = time.monotonic() + SECONDS_ALTOGETHER
    try:
        for path in chosen:
            if time.monotonic() > until:
                break
            try:
                child.send(root / path)
                headers[path] = child.receive(root / path)
            except VideoError as error:
                if error.reason not in {"timeout", "crash"}:
                    unreadable.add(path)
    finally:
        child.close()
    return HeaderSample(headers, frozenset(unreadable), frozenset({*chosen} - headers.keys() - unreadable))


def _chosen(paths: Sequence[str], total: int) -> list[str]:
    """A split's share of the sample: evenly from the first to the last."""
    count = min(len(paths), max(LEAST_OF_A_SPLIT, round(SAMPLE_VIDEOS * len(paths) / max(1, total))))
    return [paths[place * len(paths) // count] for place in range(count)]
