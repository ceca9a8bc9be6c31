"""The stored clips as the benchmark's reference: read by their offsets, one after the other, without the loader."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.shards.codecs import make_codec
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Manifest, load_manifest
from vidpipe.shards.tar import place_members

_COLUMNS = ("key", "shard", "video", "frames", "height", "width")
_PLACES = ("payload_offset", "payload_sizes", "json_offset", "json_size")


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One sample's row of the index; offsets and sizes are in bytes within its shard."""

    key: str
    shard: str
    video: str
    frames: int
    height: int
    width: int
    payload_offset: int
    payload_sizes: list[int]
    json_offset: int
    json_size: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the frames once decoded."""
        return self.frames * self.height * self.width * 3


class StoredClips:
    """All clips of a split, in the order of shards and of samples within them.

    Args:
        folder: the split's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder)
        rows = read_samples(folder, (*_COLUMNS, *_PLACES)).to_pylist()
        self.clips = tuple(StoredClip(**row) for row in rows)
        self._codec = make_codec(self.manifest.codec)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def by_key(self) -> dict[str, StoredClip]:
        """The clips by their samples' keys."""
        return {clip.key: clip for clip in self.clips}

    def frames(self, clip: StoredClip) -> NDArray[np.uint8]:
        """The clip's frames: uint8 [T, H, W, 3]."""
        places = place_members([""] * len(clip.payload_sizes), clip.payload_offset, clip.payload_sizes)
        return self._codec.decode([self._bytes(clip.shard, place.offset, place.size) for place in places])

    def description(self, clip: StoredClip) -> dict[str, Any]:
        """The sample's JSON: frame indices, and facts about the source."""
        content = json.loads(self._bytes(clip.shard, clip.json_offset, clip.json_size))
        assert isinstance(content, dict)
        return content

    def _bytes(self, shard: str, offset: int, size: int) -> bytes:
        with (self.folder / shard).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
