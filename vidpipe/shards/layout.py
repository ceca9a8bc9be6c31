"""Names and small rules of the shard format, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidpipe.errors import ShardError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SAMPLES = "samples.parquet"
REJECTS = "rejects.jsonl"
PARTS_FOLDER = ".parts"  # in a split folder, of what is finished while the split isn't
UNLABELLED = -1


def shard_name(index: int) -> str:
    """File name of shard number `index`: `00000.tar`, `00001.tar`, ..."""
    return f"{index:05d}.tar"


def index_name(shard: str) -> str:
    """File name of a shard's DALI index: `00000.idx` for `00000.tar`."""
    return shard.removesuffix(".tar") + ".idx"


def sample_key(video_number: int, clip_number: int) -> str:
    """Key of a sample: no dot and fewer than 80 bytes, so that every reader of tar and WebDataset takes it.

    Args:
        video_number: the video's place in the split's plan.
        clip_number: the clip's number within its video.
    """
    return f"{video_number:09d}-{clip_number:03d}"


def video_of(key: str) -> str:
    """What the keys of all samples of one video share, and of no other's."""
    return key.partition("-")[0]


def label_bytes(label: int, num_classes: int) -> bytes:
    """Content of `KEY.cls`: ASCII decimal of one width for the whole data set, so that batches of it are dense.

    A video without a label has `UNLABELLED`.
    """
    return f"{label:0{max(2, len(str(num_classes - 1)))}d}".encode("ascii")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into a ShardError."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{path}: can't be written: {error.strerror}; finished shards are kept: "
            "make room and run the same command again"
        ) from error
