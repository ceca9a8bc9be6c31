"""Part files: what each finished shard contributes to its split. They exist until the split is complete.

`.parts/NAME.json` appears after its shard and marks it as done; `.parts/NAME.lock` is held by whoever makes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidpipe.prep.plan import ShardPlan
from vidpipe.shards.index import read_samples
from vidpipe.shards.layout import MANIFEST, REJECTS, whole_file
from vidpipe.shards.manifest import ChannelSums, Manifest

PARTS_FOLDER = ".parts"


@dataclass(slots=True)
class Reject:
    """A video that has no sample, and why."""

    path: str
    label: str
    shard: str
    stage: str
    reason: str
    message: str


@dataclass(slots=True)
class ShardPart:
    """What a finished shard contributes to the split's index, manifest and rejects. Its file marks the shard as done."""

    name: str
    plan: str
    bytes: int
    sha256: str
    rows: list[dict[str, Any]]
    rejects: list[Reject]
    channels: ChannelSums
    decoders: dict[str, int]

    @property
    def written(self) -> int:
        """Videos with samples in the shard."""
        return sum(self.decoders.values())


_LIKE_AN_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def printable(path: str) -> str:
    r"""A path as UTF-8 text, from which it can be had back (shards/README.md says how).

    A byte that is not UTF-8 is written `\xNN`. Where that or a `\\` occurs, be it in the path itself, every backslash of the path
    is doubled; other paths stay as they are.
    """
    raw = path.encode("utf-8", "surrogateescape")
    if _LIKE_AN_ESCAPE.search(raw) or path != raw.decode("utf-8", "replace"):
        raw = raw.replace(b"\\", b"\\\\")
    return raw.decode("utf-8", "backslashreplace")


def part_path(out: Path, shard: str) -> Path:
    """Where a shard's part lies."""
    return out / PARTS_FOLDER / f"{shard}.json"


def save_part(out: Path, part: ShardPart) -> None:
    """Mark a shard as done."""
    with whole_file(part_path(out, part.name)) as stream:
        content = {**asdict(part), "channels": part.channels.model_dump()}
        stream.write(json.dumps(content).encode())


def load_part(out: Path, plan: ShardPlan) -> ShardPart | None:
    """The part of a shard that was finished from this very plan, or None if it has to be made."""
    try:
        raw = json.loads(part_path(out, plan.name).read_bytes())
        raw["rejects"] = [Reject(**reject) for reject in raw["rejects"]]
        raw["channels"] = ChannelSums.model_validate(raw["channels"])
        part = ShardPart(**raw)
        size = (out / plan.name).stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return part if part.plan == plan.fingerprint and part.bytes == size else None


@contextmanager
def locked(out: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock `name` of a split folder against all other processes; it goes with the process, however it ends.

    Args:
        wait: for another holder to let go of it.

    Yields:
        whether it is held; False only without `wait`.
    """
    descriptor = _open_lock(out / PARTS_FOLDER / f"{name}.lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another run has finished the split and removed the folder: make it anew
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def restore_parts(out: Path, manifest: Manifest) -> None:
    """Take a complete split apart again: write the parts of all its shards, then remove the manifest."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_samples(out).to_pylist():
        rows.setdefault(row["shard"], []).append(row)
    rejects = [Reject(**json.loads(line)) for line in (out / REJECTS).read_text(encoding="utf-8").splitlines()]
    (out / PARTS_FOLDER).mkdir(exist_ok=True)
    for entry in manifest.shards:
        part = ShardPart(
            name=entry.name,
            plan=entry.plan,
            bytes=entry.bytes,
            sha256=entry.sha256,
            rows=rows.get(entry.name, []),
            rejects=[reject for reject in rejects if reject.shard == entry.name],
            channels=entry.channels,
            decoders=entry.decoders,
        )
        save_part(out, part)
    (out / MANIFEST).unlink()
