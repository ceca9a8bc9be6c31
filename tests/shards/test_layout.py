"""Files of shards appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_tree import contents

from vidpipe.files import whole_file
from vidpipe.shards.tar import open_shard

ROOM = 1 << 20
SHA256 = "1e4cbe79cddbcce64a05431f55b19640bb0560bec625f297139fdb8fe4fcaab4"


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file gets longer than `ROOM`: the write that reaches it is cut short, as on a disk that is full by then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("pieces", [1, 5, 1000])
def test_a_file_that_there_is_no_room_for_leaves_the_old_one(tmp_path: Path, pieces: int) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large"), whole_file(path) as stream:
        for _ in range(pieces):
            stream.write(bytes((ROOM + 1000) // pieces))
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_a_shards_bytes_are_the_same_for_ever(tmp_path: Path) -> None:
    with open_shard(tmp_path / "00000.tar") as writer:
        writer.add("000000000-000", {"json": (b"{", b"}"), "cls": (b"07",)})
    content = (tmp_path / "00000.tar").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (3072, SHA256)
    index = "v1.2 1\ncls 512 2 000000000-000.cls json 1536 2 000000000-000.json\n"
    assert (tmp_path / "00000.idx").read_text() == index


def test_a_shard_that_the_disk_has_no_room_for_leaves_the_old_one_and_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(content: bytes) -> None:
        with open_shard(tmp_path / "00000.tar") as writer:
            writer.add("000000000-000", {"cls": (content,)})

    def sync(descriptor: int) -> None:  # some file systems find out only then
        if ".tar" in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(b"old")
    before = contents(tmp_path)
    monkeypatch.setattr("os.fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        write(b"other")
    assert contents(tmp_path) == before
