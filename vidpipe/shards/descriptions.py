"""Reads what shards say of their samples: the JSON beside each payload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from vidpipe.errors import BadSampleError, ShardError
from vidpipe.shards.checksum import crc32

COLUMNS = ("key", "shard", "json_offset", "json_size", "json_crc32")


def read_descriptions(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The descriptions of some samples of a split, in order.

    Args:
        rows: of samples.parquet, with at least `COLUMNS`.

    Raises:
        ShardError: a shard can't be read.
        BadSampleError: a description is not what was written.
    """
    for shard, samples in groupby(rows, key=itemgetter("shard")):
        try:
            with (folder / shard).open("rb") as stream:
                for row in samples:
                    stream.seek(row["json_offset"])
                    text = stream.read(row["json_size"])
                    if crc32(text) != row["json_crc32"]:
                        raise BadSampleError(
                            shard, row["key"], "its description differs from what was written (CRC-32)"
                        )
                    yield json.loads(text)
        except OSError as error:
            raise ShardError(
                f"{folder / shard}: can't be read: {error.strerror}; `vidpipe verify` tells what else is amiss"
            ) from error
