"""What each finished shard contributes to its split, kept in part files (`vidpipe.shards.parts`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from vidpipe.prep.plan import ShardPlan
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.layout import MANIFEST, PARTS_FOLDER, REJECTS
from vidpipe.shards.manifest import ChannelSums, Manifest
from vidpipe.shards.parts import read_about, write_part


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
    """A finished shard, without the rows of its samples: there may be millions of these in a split.

    Attributes:
        plan: fingerprint of the plan that it was made from.
        decoders: videos written, by the decoder that decoded them.
        versions: of what made it, as in the manifest; empty where an older vidpipe did, which didn't say.
    """

    name: str
    plan: str
    bytes: int
    sha256: str
    samples: int
    rejects: list[Reject]
    channels: ChannelSums
    decoders: dict[str, int]
    versions: dict[str, str] = field(default_factory=dict)

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


def save_part(out: Path, part: ShardPart, rows: Iterable[dict[str, Any]]) -> None:
    """Mark a shard as done."""
    write_part(out, part.name, {**asdict(part), "channels": part.channels.model_dump()}, rows)


def load_part(out: Path, plan: ShardPlan) -> ShardPart | None:
    """The part of a shard that was finished from this very plan, or None if it has to be made."""
    about = read_about(out, plan.name)
    if about is None or about.get("plan") != plan.fingerprint:
        return None
    try:
        rejects = [Reject(**reject) for reject in about["rejects"]]
        return ShardPart(**{**about, "rejects": rejects, "channels": ChannelSums.model_validate(about["channels"])})
    except (ValueError, TypeError, KeyError):
        return None


def restore_parts(out: Path, manifest: Manifest) -> None:
    """Take a complete split apart again: write the parts of all its shards, then remove the manifest."""
    lines = (out / REJECTS).read_text(encoding="utf-8").split("\n")
    rejects: dict[str, list[Reject]] = {}
    for reject in (Reject(**json.loads(line)) for line in lines if line):
        rejects.setdefault(reject.shard, []).append(reject)
    groups = groupby(SamplesFile(out, manifest.samples_file), key=lambda row: str(row["shard"]))
    following = next(groups, None)
    (out / PARTS_FOLDER).mkdir(exist_ok=True)
    for entry in manifest.shards:
        rows: list[dict[str, Any]] = []
        if following is not None and following[0] == entry.name:
            rows = list(following[1])
            following = next(groups, None)
        part = ShardPart(
            name=entry.name,
            plan=entry.plan,
            bytes=entry.bytes,
            sha256=entry.sha256,
            samples=entry.samples,
            rejects=rejects.get(entry.name, []),
            channels=entry.channels,
            decoders=entry.decoders,
            versions=manifest.versions,
        )
        save_part(out, part, rows)
    (out / MANIFEST).unlink()
