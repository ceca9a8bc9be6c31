"""Shards to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from vidpipe.loader.reading.index import SampleIndex, load_index
from vidpipe.shards.index import read_samples, write_samples
from vidpipe.shards.manifest import load_manifest


@dataclass(frozen=True)
class Damage:
    """A split folder, and one sample of it."""

    folder: Path
    index: SampleIndex
    sample: int

    @property
    def shard(self) -> Path:
        return self.folder / self.index.shards[self.index.shard[self.sample]]

    @property
    def key(self) -> str:
        return self.index.key[self.sample]

    def overwrite(self, content: Callable[[bytes], bytes]) -> None:
        """Change the bytes of the sample's whole payload."""
        start = int(self.index.offset[self.sample])
        first, end = (int(place) for place in self.index.size_start[self.sample : self.sample + 2])
        # The last file of the payload ends where the next sample's first header may begin, at a multiple of 512.
        size = sum((int(n) + 511) // 512 * 512 + 512 for n in self.index.size[first:end]) - 512
        whole = bytearray(self.shard.read_bytes())
        whole[start : start + size] = content(bytes(whole[start : start + size]))
        self.shard.write_bytes(whole)


def copied(folder: Path, to: Path, *, sample: int | None = None) -> Damage:
    """A copy of a split folder, and a sample of it: by default the second one of the second shard of at least three."""
    copy = Path(shutil.copytree(folder, to / folder.name))
    index = load_index(copy, load_manifest(copy))
    assert sample is not None or len(index.shards) >= 3
    return Damage(copy, index, int((index.shard == 1).nonzero()[0][1]) if sample is None else sample)


def rewrite_samples(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a split's samples.parquet, as if it had been written so."""
    written = write_samples(folder, change(read_samples(folder)))
    load_manifest(folder).model_copy(update={"samples_file": written}).write(folder)


def flipped(content: bytes) -> bytes:
    """One bit of the first frame."""
    return content[:300] + bytes([content[300] ^ 1]) + content[301:]


def garbage(content: bytes) -> bytes:
    """Neither an array nor a JPEG, of the same length."""
    return (b"garbage " * (len(content) // 8 + 1))[: len(content)]


def unknown_codec(content: bytes) -> bytes:
    """An MP4 that says of its video stream what no decoder knows."""
    assert b"avc1" in content
    return content.replace(b"avc1", b"qqqq")
