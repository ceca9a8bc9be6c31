"""The memory that clips of several sizes are read into, and waiting for them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidpipe.errors import BadSampleError
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.batch import RawBatch
from vidpipe.loader.engines.engine import Engine, EngineSetup
from vidpipe.loader.engines.torch import TorchDeviceEngine, TorchEngine
from vidpipe.loader.reading.index import SampleIndex, load_index
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.quarantine import Quarantine
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.reading.tasks import results_of
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.shards.codecs.base import Frames
from vidpipe.shards.manifest import load_manifest

FRAMES = [0, 2, 4, 6]


class Broken:
    """A reader of real clips that finds one of them damaged."""

    def __init__(self, folder: Path, index: SampleIndex, sample: int) -> None:
        self._reader, self._sample = ClipReader(folder, load_manifest(folder), index), sample

    def read(self, sample: int, frames: Sequence[int], out: NDArray[np.uint8]) -> Frames:
        if sample == self._sample:
            raise BadSampleError("shard", f"{sample}", "is damaged")
        return self._reader.read(sample, frames, out)


def request(sample: int) -> Request:
    return make_request(sample, [Take(FRAMES, Drawn(Region(0, 0, 64, 64)))], epoch=0, is_padding=False)


def engines(pool: ReadPool, setup: EngineSetup) -> list[Engine]:
    made: list[Engine] = [TorchEngine(pool, setup), TorchDeviceEngine(pool, setup)]
    try:
        from vidpipe.loader.engines.dali import DaliEngine
    except ImportError:
        return made
    return [*made, DaliEngine(pool, setup)]


@pytest.mark.parametrize("damaged_place", [0, 1])
def test_each_clip_has_room_for_itself_and_a_larger_stand_in_memory_of_its_own(
    real_shards: Path, damaged_place: int
) -> None:
    folder = real_shards / "train"
    manifest, index = load_manifest(folder), load_index(folder, load_manifest(folder))
    sizes = [index.frame_bytes(sample) for sample in range(len(index))]
    small, large = int(np.argmin(sizes)), int(np.argmax(sizes))
    assert sizes[small] < sizes[large] == index.max_frame_bytes
    setup = EngineSetup(
        num_frames=len(FRAMES),
        size=32,
        normalization=manifest.normalization,
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_batch_size=3,
        threads=1,
        warps=False,
        recolors=False,
    )
    wanted = [request(small if place == damaged_place else large) for place in range(3)]
    pool = ReadPool(
        Broken(folder, index, small),
        threads=2,
        frame_bytes=index.frame_bytes,
        quarantine=Quarantine(index, max_share=1.0, candidate=lambda damaged, attempt: request(large)),
    )
    reading = pool.read(wanted)
    assert reading.buffer.nbytes == len(FRAMES) * (2 * sizes[large] + sizes[small])
    assert [served.sample for served, _ in reading.results()] == [large] * 3
    for engine in engines(pool, setup):
        made, sound = (
            engine.finish(engine.start(requests), lambda _, video: video).value
            for requests in (wanted, [request(large)] * 3)
        )
        assert torch.equal(made, sound) and torch.equal(made[0], made[1])
        engine.close()
    pool.close()


@pytest.mark.parametrize("apart", [False, True])
def test_raw_clips_are_one_array_without_a_copy_only_where_they_lie_in_one(apart: bool) -> None:
    both = np.arange(2 * 12, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
    clips = [clip.copy() if apart else clip for clip in both]
    none = np.zeros(2, np.int64)
    batch = RawBatch(clips, none, ["a", "b"], ["a", "b"], none > 0, none, none)
    assert np.array_equal(batch.video, both) and np.shares_memory(batch.video, clips[0]) is not apart


@pytest.mark.parametrize("step", [1, 2])
def test_raw_clips_that_share_frames_are_one_array_with_memory_for_each(step: int) -> None:
    read = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    clips = [read[first : first + 3 : step] for first in (0, 2)]
    none = np.zeros(2, np.int64)
    video = RawBatch(clips, none, ["a", "a"], ["a", "a"], none > 0, none, none).video
    expected = video[1].copy()
    video[0] = 0
    assert np.array_equal(video[1], expected) and np.array_equal(clips[1], expected)


def test_the_first_failure_of_a_batchs_reads_is_told_at_once() -> None:
    """While others are still waiting, such as for a store that is away."""
    begun, leave = threading.Event(), threading.Event()

    def wait() -> list[int]:
        begun.set()
        leave.wait(60)
        return []

    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(wait)
        begun.wait(60)
        failing = threads.submit(lambda: [1 // 0])
        with pytest.raises(ZeroDivisionError):
            results_of([waiting, failing])
        assert not waiting.done()
        leave.set()
        assert results_of([waiting, threads.submit(lambda: [1, 2])]) == [1, 2]
        assert results_of([threads.submit(lambda n=n: [n]) for n in range(50)]) == [*range(50)]


def test_what_was_read_is_free_as_soon_as_nobody_has_it() -> None:
    """Without the collector of garbage, for which memory that could be used again would wait."""
    gc.disable()
    try:
        with ThreadPoolExecutor(2) as threads:
            tasks = [threads.submit(lambda: [np.empty(9)]) for _ in range(8)]
            arrays = [weakref.ref(array) for array in results_of(tasks)]
            del tasks
        assert [array() for array in arrays] == [None] * 8
    finally:
        gc.enable()
