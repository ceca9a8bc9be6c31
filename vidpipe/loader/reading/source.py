"""All that a loader reads, as one: the samples of one data set or of several, whatever folder each lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from vidpipe.environment import whole_from_environment
from vidpipe.errors import BadSampleError, ShardError, UsageError
from vidpipe.loader.options import LoaderOptions
from vidpipe.loader.reading.index import SampleIndex, make_index, unite_indexes
from vidpipe.loader.reading.open_shards import open_shards_allowed
from vidpipe.loader.reading.process import ReadPlan
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.reading.split_readers import SplitReaders
from vidpipe.loader.reading.splits import Shards, Split, named_folders, open_split, unite_manifests
from vidpipe.loader.reading.stored import Stored
from vidpipe.loader.remote.cache import Prefetcher
from vidpipe.loader.remote.stop import Stop
from vidpipe.loader.sampling.order import Integers
from vidpipe.loader.sampling.where import matching_rows
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.manifest import content_fingerprint

FETCH_THREADS = 4
JOIN_SECONDS = 1.0  # for which closing waits for them


class Source:
    """Random access to the samples of all splits, which are numbered one split after the other.

    Attributes:
        splits: in the order given.
        weights: of the splits, None where none were given.
        manifest: see `unite_manifests`.
        index: of all samples; labels are those of the manifest's classes.
        split_of_shard: which split each shard of the index is of.
        matching: bool [samples], those that fulfil `options.where`; None without a condition.
        shard_window: shards that are shuffled together; None shuffles globally.

    Raises:
        ShardError: a split is absent, unfinished or damaged, or has no samples.
        UsageError: the options don't fit the splits, or these don't fit together.
    """

    def __init__(self, shards: Shards, split: str | None, *, options: LoaderOptions) -> None:
        folders, self.weights = named_folders(shards)
        max_bytes = int(options.cache_gb * 1e9)
        self._process, self._stop = os.getpid(), Stop()
        self.splits = tuple(
            open_split(folder, split, cache_dir=options.cache_dir, max_bytes=max_bytes, stop=self._stop)
            for folder in folders
        )
        self.manifest = unite_manifests([split.manifest for split in self.splits], options.normalization)
        samples = [SamplesFile(split.folder, split.manifest.samples_file) for split in self.splits]
        self.index = _load(self.splits, samples, self.manifest.classes)
        counts = [len(split.manifest.shards) for split in self.splits]
        self.split_of_shard = np.repeat(np.arange(len(counts)), counts)
        if options.normalization is None:
            _check_agreement(self.splits)
        remote = sum(split.remote for split in self.splits)
        self.matching = _matching(self.splits, samples, options.where)
        windowed = (options.shuffle or ("windowed" if remote else "global")) == "windowed"
        self.shard_window = options.shuffle_window if windowed else None
        if remote:
            _check_room(self.splits, self.shard_window, max_bytes)
        max_open = max(1, open_shards_allowed() // len(self.splits))
        # What is open can't leave the cache: of all remote splits together no more than a window.
        max_open_remote = max(1, min(max_open, options.shuffle_window // remote)) if remote and windowed else max_open
        self._max_open = max_open
        readers = [
            ClipReader(
                split.folder,
                split.manifest,
                self.index,
                open_shard=split.open_shard,
                renew_shard=split.renew_shard,
                check_crc=options.check == "crc",
                max_open=max_open_remote if split.remote else max_open,
            )
            for split in self.splits
        ]
        self._prefetcher = Prefetcher(self._fetch, threads=FETCH_THREADS) if windowed else None
        self._options = options
        self._readers = SplitReaders(readers, self.index, self.split_of_shard, self._codec_names, join=_joins(options))

    @property
    def identity(self) -> str:
        """Fingerprint of the shards' content."""
        return content_fingerprint(split.manifest for split in self.splits)

    def split_number(self, sample: int) -> int:
        """Which split a sample is of."""
        return self._readers.split_number(sample)

    def split_numbers(self, samples: Sequence[int] | Integers) -> Integers:
        """Which split each of some samples is of."""
        return self.split_of_shard[self.index.shard[samples]]

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """Some frames of a sample's clip; see `ClipReader.read`."""
        with self._naming(sample):
            return self._readers.read(sample, frames, out)

    def read_stored(self, sample: int, frames: Sequence[int]) -> Stored:
        """What holds them, not decoded; raises as `read`."""
        with self._naming(sample):
            return self._readers.read_stored(sample, frames)

    def codec_of(self, sample: int) -> str:
        """Name of the codec that a sample is stored with."""
        return self._readers.codec_of(sample)

    def stored_bytes(self, sample: int, frames: Sequence[int]) -> int:
        """Bytes that what holds some frames of a sample takes at most."""
        sizes = self.index.size[self.index.size_start[sample] : self.index.size_start[sample + 1]]
        return int(sizes.max()) * (len(frames) if len(sizes) > 1 else 1)  # a file each, or one for all

    @property
    def read_plan(self) -> ReadPlan:
        """All that another process has to know for reading the same samples.

        Raises:
            UsageError: some are at a URL.
        """
        for split in self.splits:
            if split.remote:
                raise UsageError(
                    f"readers: got 'processes' for {split.name}, whose shards are fetched to a cache, which only threads do; "
                    "take readers='threads', or copy them to this machine"
                )
        return ReadPlan(
            places=self.index.places(),
            split_of_shard=self.split_of_shard,
            folders=tuple(split.folder for split in self.splits),
            manifests=tuple(split.manifest for split in self.splits),
            check_crc=self._options.check == "crc",
            max_open=self._max_open,
            join=_joins(self._options),
        )

    @property
    def codecs(self) -> frozenset[str]:
        """Names of the codecs that samples are stored with."""
        return frozenset(self._codec_names)

    @property
    def _codec_names(self) -> list[str]:
        """Of each split."""
        return [split.manifest.codec.name for split in self.splits]

    def prefetch(self, windows: Sequence[Sequence[int]], *, rank: int, world_size: int) -> None:
        """Have shards of the index near before they are read, one window after the other.

        The processes of a machine, which share a cache, begin at different shards of a window: those that torchrun started
        know their place there, others take that among all.
        """
        if self._prefetcher:
            local_rank = whole_from_environment("LOCAL_RANK", rank)
            place = local_rank / whole_from_environment("LOCAL_WORLD_SIZE", world_size, least=1)
            wanted: list[int] = []
            for window in windows:
                turn = int(len(window) * place)
                wanted += [*window[turn:], *window[:turn]]
            self._prefetcher.want(wanted)

    @property
    def bytes_read(self) -> int:
        """From the shards, as they are stored."""
        return self._readers.bytes_read

    def stop(self) -> None:
        """Let whatever is fetched in other threads end soon, unless this is a fork: nothing is there, and locks may be held for ever."""
        if os.getpid() != self._process:
            return
        self._stop.set()
        if self._prefetcher:
            self._prefetcher.stop()

    def close(self) -> None:
        """Close all shards, and end what fetches them."""
        self.stop()
        if self._prefetcher:
            self._prefetcher.join(JOIN_SECONDS)
        self._readers.close()

    @contextmanager
    def _naming(self, sample: int) -> Iterator[None]:
        """Errors about a sample name its split where there are several."""
        try:
            yield
        except BadSampleError as error:
            if len(self.splits) == 1:
                raise
            name = self.splits[self.split_number(sample)].name
            raise BadSampleError(f"{name}/{error.shard}", error.key, error.message) from error

    def _fetch(self, shard: int) -> None:
        self.splits[int(self.split_of_shard[shard])].prefetch(self.index.shards[shard])


def _joins(options: LoaderOptions) -> bool:
    """Whether one read is what one clip wants; of views, it has those that a batch wants."""
    return options.views is None


def _load(splits: Sequence[Split], samples: Sequence[SamplesFile], classes: tuple[str, ...]) -> SampleIndex:
    indexes = []
    for split, file in zip(splits, samples, strict=True):
        index = make_index(file, split.manifest)
        if len(index) == 0:
            raise ShardError(f"{split.name}: holds no samples; all its videos were rejected, see rejects.jsonl")
        indexes.append(index)
    label = {name: number for number, name in enumerate(classes)}
    return unite_indexes(indexes, [[label[name] for name in split.manifest.classes] for split in splits])


def _matching(splits: Sequence[Split], samples: Sequence[SamplesFile], where: str | None) -> NDArray[np.bool_] | None:
    if where is None:
        return None
    found = []
    for split, file in zip(splits, samples, strict=True):
        rows = matching_rows(file, where)
        if not rows.any():
            raise UsageError(f"where: {where!r} holds for none of the {len(rows)} samples of {split.name}")
        found.append(rows)
    return np.concatenate(found)


def _check_agreement(splits: Sequence[Split]) -> None:
    """Data sets that are mixed have to be normalised alike, unless it is said how."""
    first = splits[0]
    for other in splits[1:]:
        ours, theirs = first.manifest.normalization, other.manifest.normalization
        if ours != theirs:
            raise UsageError(
                f"shards: {first.name} is normalised with mean {ours.mean} and std {ours.std}, {other.name} with mean "
                f"{theirs.mean} and std {theirs.std}; say which to take: LoaderOptions(normalization=...), or data.normalize in a recipe"
            )


def _check_room(splits: Sequence[Split], window: int | None, max_bytes: int) -> None:
    """Refuse a cache that would fetch the same shards over and over."""
    sizes = [entry.bytes for split in splits if split.remote for entry in split.manifest.shards]
    # In use are a window's shards, those of the next one which are being fetched, and those of the last one still open.
    need = sum(sizes) if window is None else min(sum(sizes), 3 * window * max(sizes))
    if need > max_bytes:
        what = (
            "all shards, since shuffle='global' reads from all of them all the time"
            if window is None
            else (f"3 x shuffle_window = {3 * window} shards of {max(sizes) / 1e6:.0f} MB")
        )
        hint = "take shuffle='windowed'" if window is None else "take a smaller shuffle_window"
        raise UsageError(
            f"cache_gb: got {max_bytes / 1e9:g}, expected at least {need / 1e9:.2f}, to hold {what}; raise it, or {hint}"
        )
