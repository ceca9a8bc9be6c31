"""Shards of a cache: entries, their fetches, and what is read of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vidpipe.loader.remote.cache import ShardCache
from vidpipe.shards.manifest import ChannelSums, ShardEntry

SIZE = 1000


def entry(number: int) -> ShardEntry:
    return ShardEntry(
        name=f"{number:05d}.tar",
        samples=1,
        bytes=SIZE,
        sha256=f"{number:064x}",
        plan="",
        decoders={},
        channels=ChannelSums(),
    )


class Fetches:
    """Fetches of shards, which are written byte by byte of their number, and counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, descriptor: int) -> None:
        self.count += 1
        os.pwrite(descriptor, b"x" * SIZE, 0)


def whole_files(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.tar")}


def read(cache: ShardCache, number: int, fetch: Callable[[int], None]) -> bytes:
    with cache.open(entry(number), fetch) as file:
        return os.pread(file.descriptor, 2 * SIZE, 0)
