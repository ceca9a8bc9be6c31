"""Reads clips out of shards: only the frames that are asked for, straight into the caller's buffer, checked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import BadSampleError, ShardError, StorageError
from vidpipe.files import OpenFile
from vidpipe.loader.reading.buffers import BufferPool
from vidpipe.loader.reading.locations import SampleLocations
from vidpipe.loader.reading.open_shards import (
    MAX_OPEN_SHARDS,
    OpenShards,
    ShardOpener,
    is_stale,
    read_error,
    shards_in,
)
from vidpipe.shards.checksum import crc32, crc32_after
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import Frames, Part
from vidpipe.shards.manifest import Manifest
from vidpipe.shards.tar import content_offsets

# Linux keeps a file that is read piece by piece in larger pages than one of which 4 MB are asked for at once: reading it again
# then takes half the time. What it has already is read by one call, as each may have to wait for Python's lock afterwards.
PIECE_BYTES = 1 << 19
# Read and checked at once: more is no longer in the core's cache when its checksum is computed, less has threads wait for each other.
RUN_BYTES = 4 << 20
GAP_BYTES = 4096  # is read with what is on both sides of it: files in an archive have headers between them
KEPT_BUFFERS = 16  # of what is read before it is decoded, for what is read next
_IF_CACHED = getattr(os, "RWF_NOWAIT", 0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Location:
    """Where a sample lies: its open shard, that shard's name, the sample's number, and its files' offsets."""

    shard: OpenFile
    name: str
    sample: int
    files: list[int]


@dataclass(slots=True)
class _Run:
    """Parts that are read at once, with what little lies between them.

    Attributes:
        offset: where it begins in the shard, in bytes.
        size: in bytes.
        parts: with where each begins in the run.
    """

    offset: int
    size: int
    parts: list[tuple[Part, int]]


class ClipReader:
    """Random access to the clips of a split. Any number of threads may read at once.

    Args:
        folder: the split's folder.
        index: of this split's samples, perhaps among those of others; its names for them stand in errors.
        check_crc: verify the checksum of every part that is read.
        open_shard: gives a shard's file, by its name; by default the file in `folder`.
        renew_shard: called with a shard's name and descriptor when something in it is damaged; whether it was a damaged copy
            of a sound shard, which is then opened and read once more.
        max_open: shards that are kept open.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        index: SampleLocations,
        *,
        check_crc: bool = True,
        open_shard: ShardOpener | None = None,
        renew_shard: Callable[[str, int], bool] | None = None,
        max_open: int = MAX_OPEN_SHARDS,
    ) -> None:
        if manifest.features is not None:
            raise ShardError(
                f"{folder}: holds features of {manifest.features.backbone}, not frames: `vidpipe train resnet-temporal` reads them"
            )
        self._shards = OpenShards(open_shard or shards_in(folder, manifest), most=max_open)
        self._renew_shard = renew_shard
        self._index = index
        self._codec = make_codec(manifest.codec)
        self._check_crc = check_crc
        self._memory = BufferPool(most=KEPT_BUFFERS, step=1 << 16)
        self._counting = threading.Lock()
        self.bytes_read = 0

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """Some frames of a sample's clip.

        Args:
            sample: place in the index.
            frames: of the stored clip, in the order in which they are wanted.
            out: flat uint8 buffer with room for them.

        Returns:
            uint8 [len(frames), H, W, 3]: a view of `out`.

        Raises:
            BadSampleError: a checksum differs, or bytes are missing.
            ShardError: the shard is absent or has another size than the manifest says.
            StorageError: it can't be had at the moment.
        """
        parts = self._parts(sample, frames)
        _, height, width = self._index.shape_of(sample)
        video = out[: len(frames) * height * width * 3].reshape(len(frames), height, width, 3)

        def fill(location: _Location) -> None:
            if self._codec.raw_parts:
                self._read(location, parts, out.data)
                return
            try:
                self._codec.decode_parts(self._read(location, parts), frames, video)
            except ValueError as error:
                raise self._bad(location, f"can't be decoded: {error}") from error

        self._renewing(sample, fill)
        return video

    def read_parts(self, sample: int, frames: Sequence[int]) -> list[memoryview]:
        """What is stored of some frames of a sample, for the codec's decoder or another one; raises as `read`."""
        parts = self._parts(sample, frames)
        _, height, width = self._index.shape_of(sample)

        def checked(location: _Location) -> list[memoryview]:
            content = self._read(location, parts)
            if not self._check_crc:  # else they are what prep wrote
                try:
                    self._codec.check_parts(content, (height, width))
                except ValueError as error:
                    raise self._bad(location, f"can't be decoded: {error}") from error
            return content

        return self._renewing(sample, checked)

    def close(self) -> None:
        """Close all shards."""
        self._shards.close()

    def _parts(self, sample: int, frames: Sequence[int]) -> list[Part]:
        """What has to be read of a sample."""
        return self._codec.parts(self._index.shape_of(sample), self._sizes(sample), frames)

    def _sizes(self, sample: int) -> list[int]:
        sizes: list[int] = self._index.size[
            self._index.size_start[sample] : self._index.size_start[sample + 1]
        ].tolist()
        return sizes

    def _located(self, sample: int) -> _Location:
        """Where a sample lies."""
        shard = self._index.shards[self._index.shard[sample]]
        files = content_offsets(int(self._index.offset[sample]), self._sizes(sample))
        return _Location(self._shards[shard], shard, sample, files)

    def _renewing(self, sample: int, action: Callable[[_Location], T]) -> T:
        """Do something with a sample; once more if the shard has to be opened anew, or has damage that a new copy of it doesn't have."""
        location = self._located(sample)
        try:
            return action(location)
        except BadSampleError:
            if self._renew_shard is None or not self._renew_shard(location.name, location.shard.descriptor):
                raise
        except StorageError as error:
            if not is_stale(error):
                raise
        self._shards.forget(location.name, location.shard)
        return action(self._located(sample))

    def _read(self, location: _Location, parts: Sequence[Part], out: memoryview | None = None) -> list[memoryview]:
        """Read parts and check them: one behind the other into `out`, or into memory that is used again when they are gone.

        Returns:
            where each is.
        """
        views, at = [], 0
        runs = _runs(location, parts, gap=GAP_BYTES if out is None else 0)
        if out is None:
            out = self._memory.take(sum(run.size for run in runs)).data
        for run in runs:
            content = out[at : at + run.size]
            self._fill(location, content, run.offset)
            if self._check_crc and crc32(content) != self._expected_crc32(location, run, content):
                raise self._bad(location, "its bytes differ from what was written (CRC-32)")
            views += [content[start : start + part.size] for part, start in run.parts]
            at += run.size
        with self._counting:
            self.bytes_read += at
        return views

    def _expected_crc32(self, location: _Location, run: _Run, content: memoryview) -> int:
        """Of a run whose parts are what was written; what lies between them may be anything."""
        first = int(self._index.crc_start[location.sample])
        whole, end = 0, 0
        for (_, _, size, number), start in run.parts:
            if start > end:
                whole = crc32(content[end:start], whole)
            whole = crc32_after(whole, int(self._index.crc32[first + number]), size)
            end = start + size
        return whole

    def _fill(self, location: _Location, view: memoryview, offset: int) -> None:
        """Read as much as `view` holds."""
        flags = _IF_CACHED
        while view:
            piece = view if flags else view[:PIECE_BYTES]
            try:
                got = os.preadv(location.shard.descriptor, [piece], offset, flags)
            except OSError as error:
                if flags:  # nothing is, or this file system can't tell
                    flags = 0
                    continue
                raise read_error(location.name, self._index.name(location.sample), error) from error
            if got == 0:
                raise self._bad(location, "ends too early: the shard was truncated while in use")
            flags = 0
            view, offset = view[got:], offset + got

    def _bad(self, location: _Location, message: str) -> BadSampleError:
        return BadSampleError(location.name, self._index.name(location.sample), message)


def _runs(location: _Location, parts: Sequence[Part], *, gap: int) -> list[_Run]:
    """Parts that lie one behind the other in the shard, with at most `gap` bytes between them, together as far as RUN_BYTES allow."""
    runs: list[_Run] = []
    begin = end = -1  # of the last run, in the shard
    for part in parts:
        member, offset, size, _ = part
        first = location.files[member] + offset
        if end <= first <= end + gap and first + size - begin <= RUN_BYTES and runs:
            runs[-1].parts.append((part, first - begin))
            runs[-1].size = first + size - begin
        else:
            begin = first
            runs.append(_Run(first, size, [(part, 0)]))
        end = first + size
    return runs
