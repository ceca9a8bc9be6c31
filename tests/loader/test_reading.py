"""However the system gives a shard's bytes, the clips are the stored ones."""

from __future__ import annotations

import errno
import io
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from loader.damage import copied

import vidpipe
from vidpipe.errors import BadSampleError
from vidpipe.loader.reading import reader
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.manifest import load_manifest

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


def stale_now_and_then(preadv: Preadv) -> Preadv:
    """A network file system that loses an open file at every hundredth read; opened anew, it is read again."""
    reads, lost = itertools.count(1), set[int]()

    def read(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags and next(reads) % 100 == 0:
            lost.add(descriptor)
        elif descriptor not in lost or flags:
            return preadv(descriptor, buffers, offset, flags)
        else:
            lost.remove(descriptor)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

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
        stale_now_and_then,
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


@pytest.mark.parametrize("at_once", [4 << 20, 9_000])
def test_files_of_frames_are_read_together_and_each_is_checked(
    motion_shards: Path,
    session_command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    """In any order; what lies between them in the archive may be anything."""
    monkeypatch.setattr(reader, "RUN_BYTES", at_once)
    made = ("--set", "train_videos=1", "--set", "val_videos=0", "--codec", "jpeg", "--out", tmp_path / "jpeg")
    assert session_command("prep", "motion", "--source", tmp_path / "videos", *made) == 0
    damage = copied(tmp_path / "jpeg" / "train", tmp_path, sample=2)
    clips = ClipReader(damage.folder, load_manifest(damage.folder), damage.index)
    length, height, width = (int(n) for n in damage.index.shape[2])
    out = np.empty(4 * length * height * width * 3, np.uint8)
    whole = clips.read(2, range(length), out).copy()
    rng = np.random.default_rng(0)
    for frames in ([3], [5, 4, 3], [0, 2, 4, 6], [1, 1, 2], *rng.integers(0, length, (20, 7)).tolist()):
        assert np.array_equal(clips.read(2, frames, out), whole[frames])
    first = int(damage.index.size_start[2])
    sizes = damage.index.size[first : first + 3].tolist()
    starts = np.cumsum([0, *(size + -size % 512 + 512 for size in sizes)]).tolist()
    for place, is_frame in (
        (starts[1] - 300, False),
        (starts[1] + 40, True),
        (starts[2] - 600 - -sizes[1] % 512, True),
    ):
        damage.overwrite(lambda content, at=place: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        if is_frame:
            with pytest.raises(BadSampleError, match="CRC-32"):
                clips.read(2, range(length), out)
            assert np.array_equal(clips.read(2, [0, 2, 3], out), whole[[0, 2, 3]])
            damage.overwrite(lambda content, at=place: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        else:
            assert np.array_equal(clips.read(2, range(length), out), whole)
    clips.close()
