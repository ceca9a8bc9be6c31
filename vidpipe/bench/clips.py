"""The stored clips as the benchmark's reference: read by their offsets, one after the other, without the loader's threads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vidpipe.loader.sampling.window import stored_window
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.jpeg import DEFAULT_QUALITY
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Manifest, load_manifest
from vidpipe.shards.tar import place_members

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = ("key", "shard", "video", "frames", "height", "width")
_PLACES = ("payload_offset", "payload_sizes", "json_offset", "json_size")


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One sample's row of the index; `frames` are those that are stored, offsets and sizes are in bytes within its shard."""

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


class StoredClips:
    """All clips of a split, in the order of shards and of samples within them.

    Args:
        folder: the split's folder.
        frames: that are taken of each, from its middle at the stored stride; as many as the manifest says by default.

    Raises:
        UsageError: so many are not stored.
    """

    def __init__(self, folder: Path, *, frames: int | None = None) -> None:
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder)
        self._window = stored_window(self.manifest, frames=frames, stride=None, window="center")
        rows = read_samples(folder, (*_COLUMNS, *_PLACES)).to_pylist()
        self.clips = tuple(StoredClip(**row) for row in rows)
        self._codec = make_codec(self.manifest.codec)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def shards(self) -> list[str]:
        """Names of the shards, without those all of whose videos were rejected: some readers refuse empty archives."""
        return [entry.name for entry in self.manifest.shards if entry.samples]

    @cached_property
    def by_key(self) -> dict[str, StoredClip]:
        """The clips by their samples' keys."""
        return {clip.key: clip for clip in self.clips}

    @property
    def num_frames(self) -> int:
        """T of what is taken of each clip."""
        return self._window.frames

    def window(self, clip: StoredClip) -> list[int]:
        """The frames that are taken, as numbers within what is stored."""
        return self._window.pick(np.random.default_rng(0), clip.frames)

    def num_bytes(self, clip: StoredClip) -> int:
        """Bytes of these frames once decoded."""
        return self.num_frames * clip.height * clip.width * 3

    def frames(self, clip: StoredClip) -> NDArray[np.uint8]:
        """These frames: uint8 [T, H, W, 3]."""
        window = self.window(clip)
        content = [self._bytes(clip.shard, offset, size) for offset, size in self._parts(clip)]
        video = np.empty((len(window), clip.height, clip.width, 3), np.uint8)
        self._codec.decode_parts(content, window, video)
        return video

    def ranges(self, clip: StoredClip) -> list[tuple[int, int]]:
        """Offset and size in bytes of what is stored of these frames, parts that adjoin in one."""
        ranges: list[tuple[int, int]] = []
        for offset, size in self._parts(clip):
            if ranges and sum(ranges[-1]) == offset:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + size)
            else:
                ranges.append((offset, size))
        return ranges

    def payload(self, clip: StoredClip) -> list[bytes]:
        """The sample's payload, file by file, as it is stored."""
        places = place_members([""] * len(clip.payload_sizes), clip.payload_offset, clip.payload_sizes)
        return [self._bytes(clip.shard, place.offset, place.size) for place in places]

    def filmstrip(self, clip: StoredClip) -> bytes:
        """The wanted frames of codec `jpeg` compressed again, with the same quality, one below the other in one picture."""
        tall = self.frames(clip).reshape(-1, clip.width, 3)
        quality = self.manifest.codec.quality or DEFAULT_QUALITY
        strip: bytes = simplejpeg.encode_jpeg(tall, quality=quality, colorsubsampling="420")
        return strip

    def model_input(self, clip: StoredClip, *, size: int) -> Tensor:
        """What the loader's torch reference makes of them with a centre crop: float32 [3, T, size, size]."""
        from vidpipe.loader.augmentation.transform import center_clip

        spec = self.manifest.clip.model_copy(update={"frames": self.num_frames})
        return center_clip(self.frames(clip), spec, size=size, normalization=self.manifest.normalization)

    def description(self, clip: StoredClip) -> dict[str, Any]:
        """The sample's JSON: frame indices, and facts about the source."""
        content = json.loads(self._bytes(clip.shard, clip.json_offset, clip.json_size))
        assert isinstance(content, dict)
        return content

    def _parts(self, clip: StoredClip) -> list[tuple[int, int]]:
        """Offset and size of what is stored of each of these frames."""
        places = place_members([""] * len(clip.payload_sizes), clip.payload_offset, clip.payload_sizes)
        parts = self._codec.parts((clip.frames, clip.height, clip.width), clip.payload_sizes, self.window(clip))
        return [(places[part.member].offset + part.offset, part.size) for part in parts]

    def _bytes(self, shard: str, offset: int, size: int) -> bytes:
        with (self.folder / shard).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
