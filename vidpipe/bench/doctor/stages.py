"""The stages that `vidpipe doctor` measures, each alone, on the same clips and with as many threads as the loader has."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.bench.doctor.report import Stage, StageName
from vidpipe.loader import LoaderOptions
from vidpipe.loader.augment import Drawn, sample_rng
from vidpipe.loader.backend import make_engine
from vidpipe.loader.engine import EngineSetup
from vidpipe.loader.index import SampleIndex, load_index
from vidpipe.loader.order import permute
from vidpipe.loader.planner import make_augmentation
from vidpipe.loader.pool import ReadPool
from vidpipe.loader.reader import ClipReader
from vidpipe.loader.region import center_region
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.loader.window import frame_window
from vidpipe.shards.checksum import crc32
from vidpipe.shards.codecs import make_codec, stores_whole_videos
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import load_manifest
from vidpipe.train.data import loader_options
from vidpipe.train.recipe_data import DataSection

MAX_BYTES = 256 << 20  # of decoded clips that are kept for the stages


class Stages:
    """The stages of some clips of a split, in the memory that each needs."""

    def __init__(self, folder: Path, section: DataSection, *, device: str, threads: int, seconds: float) -> None:
        self.manifest = load_manifest(folder)
        self._folder, self._section, self._device = folder, section, torch.device(device)
        self._threads, self._seconds = threads, seconds
        self._index = load_index(folder, self.manifest)
        self._reader = ClipReader(folder, self.manifest, self._index, check_crc=False)
        self._codec = make_codec(self.manifest.codec)
        self._clips = _choose_clips(self._index, self._window_of())
        self._own = threading.local()
        self.clip_bytes = max(self._index.max_frame_bytes * len(frames) for _, frames in self._clips)
        _, height, width = (int(n) for n in self._index.shape[self._clips[0][0]])
        self.geometry = f"{len(self._clips[0][1])} frames of {width}x{height}"
        self._parts: list[list[memoryview]] = []
        self._frames: list[Frames] = []

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def measure(self) -> dict[StageName, Stage]:
        """All of them; what is cold comes first."""
        cold = self._cold_storage()
        read = self._read_into if self._codec.raw_parts else self._read_parts
        stages = [cold, Stage("storage, warm", self._rate(read))]
        for sample, frames in self._clips:
            out = np.empty(self._index.max_frame_bytes * len(frames), np.uint8)
            self._frames.append(self._reader.read(sample, frames, out))
            self._parts.append(
                [memoryview(f.reshape(-1)) for f in self._frames[-1]]
                if self._codec.raw_parts
                else self._reader.read_parts(sample, frames)
            )
        stages.append(Stage("host copy", self._rate(self._copy)))
        stages.append(Stage("CRC-32", self._rate(self._checksum)))
        decodes = not self._codec.raw_parts
        stages.append(
            Stage("decoding", self._rate(self._decode) if decodes else None, "" if decodes else "none needed")
        )
        stages.append(Stage("augmentation", self._augmentation_rate(), "crop, resize, normalisation, layout"))
        stages.append(self._transfer())
        return {stage.name: stage for stage in stages}

    def _window_of(self) -> Callable[[int], list[int]]:
        window = frame_window(
            self.manifest.clip,
            whole_videos=stores_whole_videos(self.manifest.codec),
            frames=self._section.frames,
            stride=self._section.stride,
            window="random",
        )
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

    def _cold_storage(self) -> Stage:
        """Read each clip once, after the system was asked to forget the shards."""
        names = sorted({self._index.shards[self._index.shard[sample]] for sample, _ in self._clips})
        if not all(_forget(self._folder / name) for name in names):
            return Stage("storage, cold", None, "the page cache couldn't be emptied of the shards")
        read = self._read_into if self._codec.raw_parts else self._read_parts
        start = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(read, range(len(self._clips))))
        return Stage(
            "storage, cold", len(self._clips) / (time.perf_counter() - start), f"{len(self._clips)} clips, once"
        )

    def _augmentation_rate(self) -> float:
        """The loader's engine, fed from memory; on a GPU with the way there."""
        section, options = self._section, loader_options(self._section)
        pool = ReadPool(
            _Memory(self._frames), threads=self._threads, frame_bytes=self._index.max_frame_bytes, pinned=self._on_gpu
        )
        setup = EngineSetup(
            size=section.size,
            normalization=self.manifest.normalization,
            dtype=torch.float32,
            device=self._device,
            max_batch_size=section.batch_size,
            threads=self._threads,
            warps=options.affine is not None,
            recolors=options.color_jitter is not None,
        )
        _, engine = make_engine(section.backend, pool, setup)
        clips = itertools.cycle(self._requests(options))

        def begin() -> object:
            return engine.start(list(itertools.islice(clips, section.batch_size)))

        engine.finish(begin())
        begun = deque([begin()])
        done, start = 0, time.perf_counter()
        while done == 0 or time.perf_counter() < start + self._seconds:
            begun.append(begin())
            engine.finish(begun.popleft())
            done += 1
        rate = done * section.batch_size / (time.perf_counter() - start)
        engine.finish(begun.popleft())
        pool.close()
        engine.close()
        return rate

    def _requests(self, options: LoaderOptions) -> list[Request]:
        """One clip of each of those in memory, augmented as in training."""
        section = self._section
        augmentation = make_augmentation(options, self.manifest) if section.augment else None
        requests = []
        for number, frames in enumerate(self._frames):
            height, width = frames.shape[1:3]
            rng = sample_rng(seed=0, epoch=0, sample=number)
            if augmentation is None:
                drawn = Drawn(center_region(height, width))
            else:
                drawn = augmentation.draw(rng, height=height, width=width, size=section.size)
            requests.append(make_request(number, [Take(range(len(frames)), drawn)], is_padding=False))
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


class _Memory:
    """A reader of clips that are in memory already."""

    def __init__(self, clips: Sequence[Frames]) -> None:
        self._clips = clips

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        """The clip, copied."""
        clip = self._clips[sample]
        video = out[: clip.nbytes].reshape(clip.shape)
        np.copyto(video, clip)
        return video


def _choose_clips(index: SampleIndex, window: Callable[[int], list[int]]) -> list[tuple[int, list[int]]]:
    """Samples from all over the split with their frames, as many as there is room for."""
    chosen: list[tuple[int, list[int]]] = []
    room = MAX_BYTES
    for sample in permute(np.arange(len(index)), size=len(index), seed=0, epoch=0).tolist():
        frames = window(sample)
        room -= len(frames) * int(index.shape[sample, 1]) * int(index.shape[sample, 2]) * 3
        if room < 0 and chosen:
            break
        chosen.append((sample, frames))
    return chosen


def _forget(path: Path) -> bool:
    """Drop a file from the page cache; whether its first byte is really gone from there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False
    finally:
        os.close(descriptor)
    return False
