"""The stages that `vidpipe doctor` measures, each alone, on the same clips and with as many threads as the loader has."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.bench.doctor.memory import MemorySource
from vidpipe.bench.doctor.report import Stage, StageName
from vidpipe.files import OpenFile
from vidpipe.loader import LoaderOptions
from vidpipe.loader.augmentation.augment import Drawn, sample_rng
from vidpipe.loader.augmentation.region import center_region
from vidpipe.loader.engines.backend import make_engine
from vidpipe.loader.engines.engine import EngineSetup, Made
from vidpipe.loader.reading.index import SampleIndex, load_index
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.reading.source import FETCH_THREADS
from vidpipe.loader.reading.splits import Split
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.loader.sampling.order import permute
from vidpipe.loader.sampling.planner import make_augmentation
from vidpipe.loader.sampling.window import stored_window
from vidpipe.loader.transfer import allocation_for, find_device
from vidpipe.shards.checksum import crc32
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import Frames
from vidpipe.train.data import loader_options
from vidpipe.train.recipe_data import DataSection

MAX_BYTES = 256 << 20  # of decoded clips that are kept for the stages


class Stages:
    """The stages of some clips of a split, in the memory that each needs."""

    def __init__(self, split: Split, section: DataSection, *, device: str, threads: int, seconds: float) -> None:
        self.manifest = split.manifest
        self._split, self._section, self._device = split, section, find_device(device)
        self._threads, self._seconds = threads, seconds
        self._index = load_index(split.folder, self.manifest)
        self._reader = ClipReader(
            split.folder, self.manifest, self._index, open_shard=split.open_shard, check_crc=False
        )
        self._codec = make_codec(self.manifest.codec)
        self._clips = _choose_clips(self._index, self._window_of(), self.shards)
        self._own = threading.local()
        self.clip_bytes = max(self._index.frame_bytes(sample) * len(frames) for sample, frames in self._clips)
        _, height, width = self._index.shape_of(self._clips[0][0])
        self.geometry = f"{len(self._clips[0][1])} frames of {width}x{height}"
        self._parts: list[list[memoryview]] = []
        self._frames: list[Frames] = []

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards that are looked at: all, or as many of those at a URL as a loader fetches at a time."""
        names = self._index.shards
        return tuple(sorted(names, key=self._split.is_near)[:FETCH_THREADS]) if self._split.remote else names

    def measure(self) -> dict[StageName, Stage]:
        """All of them; what is cold comes first."""
        fetch = [self._fetch()] if self._split.remote else []
        cold = self._cold_storage()
        read = self._read_into if self._codec.raw_parts else self._read_parts
        stages = [*fetch, cold, Stage("storage, warm", self._rate(read))]
        for sample, frames in self._clips:
            out = np.empty(self._index.frame_bytes(sample) * len(frames), np.uint8)
            self._frames.append(self._reader.read(sample, frames, out))
            self._parts.append(
                [memoryview(f.reshape(-1)) for f in self._frames[-1]]
                if self._codec.raw_parts
                else self._reader.read_parts(sample, frames)
            )
        stages.append(Stage("host copy", self._rate(self._copy)))
        stages.append(
            Stage("CRC-32", None, "check: off")
            if self._section.check == "off"
            else Stage("CRC-32", self._rate(self._checksum))
        )
        return {stage.name: stage for stage in (*stages, *self._from_memory_on())}

    def _window_of(self) -> Callable[[int], list[int]]:
        window = stored_window(self.manifest, frames=self._section.frames, stride=self._section.stride, window="random")
        return lambda sample: window.pick(sample_rng(seed=0, epoch=0, sample=sample), int(self._index.shape[sample, 0]))

    def _rate(self, work: Callable[[int], object]) -> float:
        """Clips a second of some work on a clip, given its number, by all threads at once."""
        count, threads = len(self._clips), self._threads
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(min(count, threads))))
            start = time.perf_counter()

            def run(thread: int) -> int:
                done = 0
                while done == 0 or time.perf_counter() < start + self._seconds:
                    work((thread * count // threads + done) % count)
                    done += 1
                return done

            return sum(pool.map(run, range(threads))) / (time.perf_counter() - start)

    def _room(self) -> NDArray[np.uint8]:
        """Memory of the calling thread's own."""
        if not hasattr(self._own, "room"):
            self._own.room = np.empty(self.clip_bytes, np.uint8)
        room: NDArray[np.uint8] = self._own.room
        return room

    def _read_into(self, number: int) -> None:
        self._reader.read(*self._clips[number], self._room())

    def _read_parts(self, number: int) -> None:
        self._reader.read_parts(*self._clips[number])

    def _copy(self, number: int) -> None:
        frames = self._frames[number]
        np.copyto(self._room()[: frames.nbytes], frames.reshape(-1))

    def _checksum(self, number: int) -> None:
        for part in self._parts[number]:
            crc32(part)

    def _decode(self, number: int) -> None:
        shape = self._frames[number].shape
        out = self._room()[: self._frames[number].nbytes].reshape(shape)
        self._codec.decode_parts(self._parts[number], self._clips[number][1], out)

    def _fetch(self) -> Stage:
        """Bring the shards into the cache, as many at a time as a loader does."""
        far = [name for name in self.shards if not self._split.is_near(name)]
        if not far:
            return Stage("fetch", None, "all of the shards are in the cache")
        start = time.perf_counter()
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            list(pool.map(self._split.prefetch, far))
        fetched, seconds = sum(self._split.entries[name].bytes for name in far), time.perf_counter() - start
        per_epoch = self._index.num_videos if self._section.epoch_unit == "video" else len(self._index)
        share = fetched / sum(entry.bytes for entry in self._split.entries.values())
        note = f"{len(far)} shards, {fetched / seconds / 1e6:.0f} MB/s; shards are fetched whole"
        return Stage("fetch", per_epoch * share / seconds, note)

    def _cold_storage(self) -> Stage:
        """Read each clip once, after the system was asked to forget the shards."""
        names = sorted({self._index.shards[self._index.shard[sample]] for sample, _ in self._clips})
        if not all(_forget(self._split.open_shard(name)) for name in names):
            return Stage("storage, cold", None, "the page cache couldn't be emptied of the shards")
        read = self._read_into if self._codec.raw_parts else self._read_parts
        start = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(read, range(len(self._clips))))
        return Stage(
            "storage, cold", len(self._clips) / (time.perf_counter() - start), f"{len(self._clips)} clips, once"
        )

    def _from_memory_on(self) -> list[Stage]:
        """What is done to bytes that have been read, by whoever does it in training."""
        rate, decodes = self._engine_rate()
        if decodes:
            note = f"by DALI on {self._device}, with the way of the bytes to it"
            return [
                Stage("decoding and augmentation", rate, note),
                Stage("transfer", None, "of compressed bytes, in decoding"),
            ]
        decoding = Stage("decoding", None, "none needed")
        if not self._codec.raw_parts:
            decoding = Stage("decoding", self._rate(self._decode), "by the threads")
        return [decoding, Stage("augmentation", rate, "crop, resize, normalisation, layout"), self._transfer()]

    def _engine_rate(self) -> tuple[float, bool]:
        """Clips a second of the loader's engine, fed from memory, on a GPU with the way there; and whether it decodes them."""
        section, options = self._section, loader_options(self._section)
        memory = MemorySource(self.manifest.codec.name, self._clips, self._frames, self._parts)
        pool = ReadPool(
            memory,
            threads=self._threads,
            frame_bytes=lambda number: self._frames[number][0].nbytes,
            allocate=allocation_for(self._device),
        )
        setup = EngineSetup(
            num_frames=len(self._clips[0][1]),
            size=section.size,
            normalization=self.manifest.normalization,
            dtype=torch.float32,
            device=self._device,
            max_batch_size=section.batch_size,
            threads=self._threads,
            warps=options.affine is not None,
            recolors=options.color_jitter is not None,
        )
        codecs = frozenset({self.manifest.codec.name})
        _, engine = make_engine(section.backend, pool, setup, decode=section.decode, codecs=codecs)
        clips = itertools.cycle(self._requests(options))

        def begin() -> object:
            return engine.start(list(itertools.islice(clips, section.batch_size)))

        def finish(started: object) -> Made[torch.Tensor]:
            return engine.finish(started, lambda _, video: video)

        finish(begin())
        begun = deque([begin()])
        done, start = 0, time.perf_counter()
        while done == 0 or time.perf_counter() < start + self._seconds:
            begun.append(begin())
            made = finish(begun.popleft())
            done += 1
        if made.ready is not None:
            made.ready.synchronize()
        rate = done * section.batch_size / (time.perf_counter() - start)
        finish(begun.popleft())
        pool.close()
        engine.close()
        return rate, self.manifest.codec.name in engine.decodes

    def _requests(self, options: LoaderOptions) -> list[Request]:
        """One clip of each of those in memory, augmented as in training."""
        section = self._section
        augmentation = None
        if section.augment:
            augmentation = make_augmentation(
                options, may_flip=self.manifest.horizontal_flip, stored=self.manifest.normalization
            )
        requests = []
        for number, frames in enumerate(self._frames):
            height, width = frames.shape[1:3]
            rng = sample_rng(seed=0, epoch=0, sample=number)
            if augmentation is None:
                drawn = Drawn(center_region(height, width))
            else:
                drawn = augmentation.draw(rng, height=height, width=width, size=section.size)
            requests.append(make_request(number, [Take(range(len(frames)), drawn)], epoch=0, is_padding=False))
        return requests

    def _transfer(self) -> Stage:
        """A batch's frames from page-locked memory to the GPU."""
        if not self._on_gpu:
            return Stage("transfer", None, "no GPU")
        batch = torch.empty(self.clip_bytes * self._section.batch_size, dtype=torch.uint8, pin_memory=True)
        batch.to(self._device)
        torch.cuda.synchronize()
        done, start = 0, time.perf_counter()
        while done == 0 or time.perf_counter() < start + self._seconds:
            batch.to(self._device, non_blocking=True)
            torch.cuda.synchronize()
            done += 1
        return Stage("transfer", done * self._section.batch_size / (time.perf_counter() - start), "8-bit frames")

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"


def _choose_clips(
    index: SampleIndex, window: Callable[[int], list[int]], shards: Sequence[str]
) -> list[tuple[int, list[int]]]:
    """Samples from all over these shards with their frames, as many as there is room for."""
    chosen: list[tuple[int, list[int]]] = []
    room = MAX_BYTES
    samples = np.flatnonzero(np.isin(index.shard, [index.shards.index(name) for name in shards]))
    for sample in samples[permute(np.arange(len(samples)), size=len(samples), seed=0, epoch=0)].tolist():
        frames = window(sample)
        room -= len(frames) * index.frame_bytes(sample)
        if room < 0 and chosen:
            break
        chosen.append((sample, frames))
    return chosen


def _forget(shard: OpenFile) -> bool:
    """Drop a file from the page cache, and close it; whether its first byte is really gone from there."""
    with shard as file:
        try:
            os.fsync(file.descriptor)
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(file.descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except (OSError, AttributeError):
            return False
    return False
