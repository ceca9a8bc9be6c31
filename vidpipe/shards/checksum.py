"""The checksum of the shard format: zlib's CRC-32, computed by ISA-L, several times as fast as zlib does."""

from __future__ import annotations

from isal import isal_zlib

Buffer = bytes | bytearray | memoryview


def crc32(content: Buffer) -> int:
    """CRC-32 as in zlib, gzip and PNG, 0 to 2^32 - 1."""
    return isal_zlib.crc32(content)
