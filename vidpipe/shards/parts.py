"""Part files: what each finished shard contributes to its split. They exist until the split is complete.

`.parts/NAME.json` appears after its shard and marks it as done: a line of JSON about the shard, then one for each sample, so that
nobody has to hold the rows of a whole split. `.parts/NAME.lock` is held by whoever makes the shard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vidpipe.errors import ShardError
from vidpipe.files import TEMPORARY_SUFFIX, sync_folder, whole_file
from vidpipe.shards.layout import MANIFEST, PARTS_FOLDER


def write_part(out: Path, shard: str, about: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Mark a shard as done.

    Args:
        rows: of samples.parquet.
    """
    with whole_file(_path(out, shard)) as stream:
        stream.write(b"".join(json.dumps(line).encode() + b"\n" for line in (about, *rows)))


def read_about(out: Path, shard: str) -> dict[str, Any] | None:
    """What was written about a shard, besides its rows; None where that can't be read, or the shard is gone or of another size."""
    try:
        with _path(out, shard).open("rb") as stream:
            about: dict[str, Any] = json.loads(stream.readline())
        return about if about["bytes"] == (out / shard).stat().st_size else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_rows(out: Path, shard: str) -> Iterator[dict[str, Any]]:
    """The rows of samples.parquet for a shard, one after the other.

    Raises:
        ShardError: the part is gone or damaged.
    """
    path = _path(out, shard)
    try:
        with path.open("rb") as stream:
            stream.readline()
            for line in stream:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: can't be read: {error}; delete it and run the same command again") from error


def drop_part(out: Path, shard: str) -> None:
    """Have a shard count as not done, if it did; so it does after a crash, too."""
    path = _path(out, shard)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def drop_leftovers(out: Path) -> None:
    """Remove from a split's folder, if it is complete, what only an unfinished run needs, and temporary files of killed runs.

    Only for a run that is alone there.
    """
    if not (out / MANIFEST).is_file():
        return
    for path in out.glob(f"*{TEMPORARY_SUFFIX}"):
        path.unlink()
    if (out / PARTS_FOLDER).is_dir():
        shutil.rmtree(out / PARTS_FOLDER)


def _path(out: Path, shard: str) -> Path:
    return out / PARTS_FOLDER / f"{shard}.json"
