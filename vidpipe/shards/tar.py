"""Writes one shard: a reproducible ustar archive, its DALI index, and where every member lies."""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vidpipe.files import sync_file, whole_file
from vidpipe.shards.checksum import Buffer
from vidpipe.shards.layout import index_name

BLOCK = 512


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's content lies in its shard.

    Attributes:
        extension: what follows the key and a dot.
        offset: of the first byte of the content.
        size: of the content in bytes.
    """

    extension: str
    offset: int
    size: int


@dataclass(slots=True)
class TarSummary:
    """What a finished shard is: samples in order, bytes, SHA-256 in hexadecimal."""

    samples: list[tuple[str, tuple[Member, ...]]] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""


def header(name: str, size: int) -> bytes:
    """The 512-byte ustar header of a member; the same for the same name and size, for ever and everywhere."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    info.mtime = 0
    info.uid = info.gid = 0
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def place_members(extensions: Sequence[str], first_offset: int, sizes: Sequence[int]) -> list[Member]:
    """Where files lie that stand one behind the other, given the place of the first one's content and all sizes."""
    return [
        Member(extension, offset, size)
        for extension, offset, size in zip(extensions, content_offsets(first_offset, sizes), sizes, strict=True)
    ]


def content_offsets(first_offset: int, sizes: Sequence[int]) -> list[int]:
    """Where the contents of such files begin."""
    return [*itertools.accumulate((size + -size % BLOCK + BLOCK for size in sizes[:-1]), initial=first_offset)]


class TarWriter:
    """Appends samples to a stream. Made by `open_shard`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.summary = TarSummary()

    def add(self, key: str, members: Mapping[str, Sequence[Buffer]]) -> tuple[Member, ...]:
        """Write one sample; members go in the order of their extensions. Returns where each lies.

        Args:
            members: by extension, the pieces of bytes whose concatenation is the content.
        """
        placed = []
        for extension in sorted(members):
            pieces = members[extension]
            size = sum(len(piece) for piece in pieces)
            self._write(header(f"{key}.{extension}", size))
            placed.append(Member(extension, self.summary.bytes, size))
            for piece in pieces:
                self._write(piece)
            self._write(bytes(-size % BLOCK))
        self.summary.samples.append((key, tuple(placed)))
        return tuple(placed)

    def finish(self) -> None:
        """Write the end of the archive and fix the hash."""
        self._write(bytes(2 * BLOCK))
        self.summary.sha256 = self._hash.hexdigest()

    def _write(self, content: Buffer) -> None:
        self._hash.update(content)
        self._stream.write(content)
        self.summary.bytes += len(content)


@contextmanager
def open_shard(path: Path) -> Iterator[TarWriter]:
    """A writer for the shard at `path`; on leaving the block, the index and then the shard appear, both whole.

    An exception within the block leaves neither, and so does a disk that is full by its end.
    """
    with whole_file(path, is_huge=True) as stream:
        writer = TarWriter(stream)
        yield writer
        writer.finish()
        sync_file(stream)  # before the index, so that it doesn't appear alone
        with whole_file(path.with_name(index_name(path.name))) as index:
            index.write(dali_index(writer.summary))


def dali_index(summary: TarSummary) -> bytes:
    """DALI's index, version 1.2: a count, then per sample `extension content-offset size name` for each member."""
    text = io.StringIO()
    text.write(f"v1.2 {len(summary.samples)}\n")
    for key, members in summary.samples:
        text.write(" ".join(f"{m.extension} {m.offset} {m.size} {key}.{m.extension}" for m in members))
        text.write("\n")
    return text.getvalue().encode("ascii")
