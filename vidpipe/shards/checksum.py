"""The checksums of the shard format: of parts zlib's CRC-32, computed by ISA-L several times as fast as zlib does; of files SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from isal import isal_zlib

from vidpipe.errors import ShardError

Buffer = bytes | bytearray | memoryview


def crc32(content: Buffer) -> int:
    """CRC-32 as in zlib, gzip and PNG, 0 to 2^32 - 1."""
    return isal_zlib.crc32(content)


def crc32_of_all(parts: Iterable[tuple[int, int]]) -> int:
    """CRC-32 of parts that stand one behind the other, of which each one's own CRC-32 and size in bytes are known.

    So what was read at once is checked at once: each checksum of more than 5 KB that is computed lets go of Python's lock, and
    getting it back takes longer than computing it where many threads want it.
    """
    whole = 0  # of nothing
    for crc, size in parts:
        whole = isal_zlib.crc32_combine(whole, crc, size)
    return whole


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        ShardError: it can't be read.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror}") from error
