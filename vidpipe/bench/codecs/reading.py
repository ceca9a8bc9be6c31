"""How fast clips are read: all of a split by the loader and its reader, and some frames of longer clips."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader import Loader, LoaderOptions
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.sampling.window import stored_window
from vidpipe.shards.manifest import load_manifest

BATCH_SIZE = 8


class Reading:
    """The reader without any transform; one clip of each sample.

    Args:
        shards: a split's folder.
        frames: of a clip; as many as the manifest says by default.
        stride: of a clip, in frames of the source; the manifest's by default.
    """

    def __init__(self, shards: Path, *, frames: int | None = None, stride: int | None = None) -> None:
        manifest = load_manifest(shards)
        self._index = load_index(shards, manifest)
        self._reader = ClipReader(shards, manifest, self._index)
        window = stored_window(manifest, frames=frames, stride=stride, window="center")
        rng = np.random.default_rng(0)
        self._frames = [window.pick(rng, int(shape[0])) for shape in self._index.shape]
        self._bytes = window.frames * self._index.max_frame_bytes
        self._own = threading.local()

    def clips_per_second(self, seconds: float, *, threads: int = 1) -> float:
        """All samples, again and again for at least so long, by so many threads."""
        samples = range(len(self._index))
        with ThreadPoolExecutor(threads) as executor:
            return _rate(lambda: sum(executor.map(self._read, samples)), seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def _read(self, sample: int) -> int:
        buffer: NDArray[np.uint8] | None = getattr(self._own, "buffer", None)
        if buffer is None:
            buffer = self._own.buffer = np.empty(self._bytes, np.uint8)
        self._reader.read(sample, self._frames[sample], buffer)
        return 1


def training_clips_per_second(shards: Path, *, size: int, threads: int, seconds: float) -> float:
    """Whole epochs of the loader on the CPU, for at least so long: random resized crop, flip, normalised float32.

    Args:
        shards: a split's folder.
        size: side of the model's input in pixels.
    """
    with Loader(
        shards,
        batch_size=BATCH_SIZE,
        size=size,
        augment="train",
        backend="torch",
        rank=0,
        world_size=1,
        options=LoaderOptions(threads=threads, epoch_unit="clip"),
    ) as loader:
        return _rate(lambda: sum(len(batch) for batch in loader), seconds)


def _rate(one_pass: Callable[[], int], seconds: float) -> float:
    """Clips per second: one pass untimed, then others for at least so long. A pass gives the number of its clips."""
    one_pass()
    clips, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or not clips:
        clips += one_pass()
    return clips / elapsed
