"""The checksums of the shard format: of parts zlib's CRC-32, computed by ISA-L several times as fast as zlib does; of files SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isal import isal_zlib

from vidpipe.errors import ShardError

Buffer = bytes | bytearray | memoryview


def crc32(content: Buffer, before: int = 0) -> int:
    """CRC-32 as in zlib, gzip and PNG, 0 to 2^32 - 1; of what stands before it too, given the CRC-32 of that."""
    return isal_zlib.crc32(content, before)


def crc32_after(before: int, known: int, size: int) -> int:
    """CRC-32 of something and what stands behind it, of which its own CRC-32 and size in bytes are known.

    So what was read at once is checked at once: each checksum of more than 5 KB that is computed lets go of Python's lock, and
    getting it back takes longer than computing it where many threads want it.
    """
    return isal_zlib.crc32_combine(before, known, size)


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
