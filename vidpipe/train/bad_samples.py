"""Damaged samples that a run leaves out (`data.on_bad: skip`): they are listed, and counted over all processes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from vidpipe.loader import Loader
from vidpipe.train.data import ClipLoader
from vidpipe.train.device import gathered

BAD_SAMPLES = "bad-samples.jsonl"


def left_out(loader: ClipLoader) -> set[str]:
    """What a loader has left out in this process, a JSON object each; one of features leaves nothing out."""
    if not isinstance(loader, Loader) or loader.options.on_bad != "skip":
        return set()
    return {json.dumps({"split": loader.manifest.split, "error": str(error)}) for error in loader.errors}


class BadSamples:
    """Lists what the loaders of this process left out, one JSON object a line; what is listed already isn't again.

    Args:
        path: the list, which all processes add to.
    """

    def __init__(self, path: Path, loaders: Iterable[ClipLoader]) -> None:
        self._path, self._loaders = path, tuple(loaders)
        self._known: set[str] = set()

    def look(self) -> int:
        """List what is new since the last look; how many samples, and shards that can't be opened, that is."""
        new = set().union(*map(left_out, self._loaders)) - self._known
        if new:
            listed = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
            self._path.parent.mkdir(parents=True, exist_ok=True)  # the first process's may be another machine's
            with self._path.open("a", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in sorted(new.difference(listed)))
        self._known |= new
        return len(new)

    def total(self, world_size: int) -> int:
        """How many all processes have left out so far, each counted once; every process must call it."""
        self.look()
        return len(set().union(*gathered(self._known, world_size)))
