"""However the system gives a shard's bytes, the clips are the stored ones."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import vidpipe
from vidpipe.loader import reader

Preadv = Callable[..., int]


def as_it_is(preadv: Preadv) -> Preadv:
    return preadv


def refusing(number: int) -> Callable[[Preadv], Preadv]:
    """A system that gives nothing where it may not wait: EAGAIN where nothing is cached, EOPNOTSUPP where it can't tell."""

    def system(preadv: Preadv) -> Preadv:
        def read(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
            if flags:
                raise OSError(number, os.strerror(number))
            return preadv(descriptor, buffers, offset)

        return read

    return system


def little_at_a_time(preadv: Preadv) -> Preadv:
    def read(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        return preadv(descriptor, [buffers[0][:5000]], offset, flags)

    return read


def stored_clips(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Key and frames, without any code of ours."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".npy"):
                    content = archive.extractfile(member)
                    assert content
                    yield member.name.removesuffix(".npy"), np.load(io.BytesIO(content.read()))


@pytest.mark.parametrize(
    "system",
    [
        as_it_is,
        pytest.param(refusing(errno.EAGAIN), id="nothing_cached"),
        pytest.param(refusing(errno.EOPNOTSUPP), id="no_such_flag"),
        little_at_a_time,
    ],
)
@pytest.mark.parametrize("check", ["crc", "off"])
def test_clips_are_read_whole(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, check: str, system: Callable[[Preadv], Preadv]
) -> None:
    """Clips of many pieces, with frames on their borders."""
    stored = dict(stored_clips(motion_shards / "train"))
    monkeypatch.setattr(reader, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(reader, "RUN_BYTES", 30_000)
    monkeypatch.setattr(os, "preadv", system(os.preadv))
    options = vidpipe.LoaderOptions(check=check, epoch_unit="clip")
    with vidpipe.Loader(motion_shards, batch_size=4, backend="torch", options=options) as loader:
        found = {key: clip for batch in loader.read_batches() for key, clip in zip(batch.key, batch.clips, strict=True)}
    assert found.keys() == stored.keys()
    assert all(np.array_equal(clip, stored[key]) for key, clip in found.items())
