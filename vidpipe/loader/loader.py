"""The loader: shards in, batches of clips out, in an order that depends on nothing but seed and epoch."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.cores import usable_cores
from vidpipe.errors import MissingExtraError, ShardError, UsageError
from vidpipe.loader.augment import Augmentation, center_region, sample_rng
from vidpipe.loader.batch import Augment, Backend, Batch, LoaderOptions, LoaderStats
from vidpipe.loader.engine import Engine, ReadPool, Request
from vidpipe.loader.index import load_index
from vidpipe.loader.order import Share, keyed_integers, permute
from vidpipe.loader.reader import ClipReader
from vidpipe.loader.window import frame_window
from vidpipe.shards.manifest import find_split, load_manifest

STATE_VERSION = 1
MAX_THREADS = 16


class Loader:
    """Batches of one split, epoch after epoch; an iterable for anyone's training loop.

    Iterating gives what is left of the current epoch; then `epoch` has advanced by one. Batches are prepared ahead in the
    background and each is the consumer's own: it is not written to again.

    Args:
        shards: a data-set folder with splits, or a split's own.
        split: which one.
        batch_size: clips a batch, for each rank.
        frames, stride: of the clips given, within those stored (see `frame_window`); as stored by default. `stride` is in
            native source frames.
        size: side of the square input in pixels.
        augment: `train` for random crops (and flips, where the data allow them), None for a centred crop.
        device: where batches are wanted.
        backend: `dali`, `torch`, or `auto`: DALI on a GPU where it can be imported, else torch, which is two to three times
            as fast as DALI on the CPU (docs/benchmarks.md).
        seed: of order and augmentation.
        drop_last: leave out the last batch if it is short.
        rank, world_size: of this process; by default from RANK and WORLD_SIZE, else 0 of 1.
        options: rarer settings.

    Raises:
        ShardError: the shards are absent, unfinished or damaged.
        UsageError: an argument doesn't fit the shards.
        MissingExtraError: `backend="dali"` where DALI isn't installed.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str],
        *,
        split: str = "train",
        batch_size: int = 32,
        frames: int | None = None,
        stride: int | None = None,
        size: int = 224,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        options: LoaderOptions | None = None,
    ) -> None:
        self.options = options or LoaderOptions()
        folder = find_split(Path(shards), split)
        self.manifest = load_manifest(folder)
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self.world_size = int(os.environ.get("WORLD_SIZE", "1")) if world_size is None else world_size
        _check_arguments(batch_size=batch_size, size=size, rank=self.rank, world_size=self.world_size)
        random = augment == "train"
        window = self.options.window if self.options.window is not None else "random" if random else "center"
        self._window = frame_window(self.manifest.clip, frames=frames, stride=stride, window=window)
        self._augmentation = _augmentation(self.options, self.manifest.horizontal_flip) if random else None
        self.batch_size, self.size, self.seed, self.drop_last = batch_size, size, seed, drop_last
        self._index = load_index(folder, self.manifest)
        if len(self._index) == 0:
            raise ShardError(f"{folder}: holds no samples; all its videos were rejected, see rejects.jsonl")
        self._epoch = self._consumed = 0
        self._clips = 0
        self._wait_seconds = self._busy_seconds = 0.0
        self._open(folder, torch.device(device), backend)

    def _open(self, folder: Path, device: torch.device, backend: Backend) -> None:
        threads = self.options.threads or min(MAX_THREADS, usable_cores())
        self._reader = ClipReader(folder, self.manifest, self._index, check_crc=self.options.check == "crc")
        self._pool = ReadPool(
            self._reader,
            threads=threads,
            frame_bytes=self._index.max_frame_bytes,
            stand_in=self._stand_in if self.options.on_bad == "skip" else None,
        )
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="vidpipe-batch")
        self.backend, self._engine = self._make_engine(device, backend, threads)

    def _make_engine(self, device: torch.device, backend: Backend, threads: int) -> tuple[str, Engine]:
        size, normalization = self.size, self.manifest.normalization
        if backend == "dali" or (backend == "auto" and device.type == "cuda"):
            try:
                from vidpipe.loader.dali import DaliEngine

                engine = DaliEngine(
                    self._pool,
                    size=size,
                    normalization=normalization,
                    device=device,
                    max_batch_size=self.batch_size,
                    threads=threads,
                )
            except ImportError as error:
                if backend == "dali":
                    hint = "pip install nvidia-dali-cuda130 (or vidpipe[cuda12]), or take backend='torch'"
                    raise MissingExtraError(f"backend 'dali': DALI can't be imported ({error}); {hint}") from error
            else:
                return "dali", engine
        from vidpipe.loader.torch import TorchEngine

        return "torch", TorchEngine(self._pool, size=size, normalization=normalization, device=device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels index them."""
        return self.manifest.classes

    @property
    def num_frames(self) -> int:
        """T of the batches."""
        return self._window.frames

    @property
    def num_samples(self) -> int:
        """Clips that an epoch gives, over all ranks and without padding."""
        return self._index.num_videos if self.options.epoch_unit == "video" else len(self._index)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; does nothing when that epoch is under way."""
        if epoch != self._epoch:
            self._epoch, self._consumed = epoch, 0

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return self._share(consumed=0).num_batches(self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        epoch, share = self._epoch, self._share(self._consumed)
        pending: deque[Future[tuple[list[Request], torch.Tensor]]] = deque()
        num_batches = share.num_batches(self.batch_size, drop_last=self.drop_last)
        started = 0
        try:
            for number in range(num_batches):
                asked = time.perf_counter()
                while started < min(num_batches, number + 1 + self.options.prefetch_batches):
                    pending.append(self._start(share, started, epoch))
                    started += 1
                batch = self._finish(pending.popleft())
                self._epoch = epoch
                self._consumed = min(share.size, share.consumed + (number + 1) * self.batch_size * self.world_size)
                self._clips += len(batch)
                given = time.perf_counter()
                self._wait_seconds += given - asked
                yield batch
                self._busy_seconds += time.perf_counter() - given
            self._epoch, self._consumed = epoch + 1, 0
        finally:
            for future in pending:
                future.cancel()

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is, as small JSON: the same for all ranks after the same number of batches."""
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch,
            "consumed": self._consumed,
            "seed": self.seed,
            "epoch_unit": self.options.epoch_unit,
            "samples": self.num_samples,
            "shards": self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly after the last batch that was given when `state` was taken, at any world size.

        Raises:
            UsageError: the state is of other shards, another seed or another version; nothing is changed then.
        """
        ours = {**self.state_dict(), "epoch": state.get("epoch"), "consumed": state.get("consumed")}
        for key, value in ours.items():
            if state.get(key) != value or value is None:
                raise UsageError(
                    f"loader state: {key} is {state.get(key)!r}, but this loader has {value!r}: "
                    "a loader can only go on with the shards and the seed that it began with"
                )
        self._epoch, self._consumed = int(state["epoch"]), int(state["consumed"])

    def stats(self) -> LoaderStats:
        """What was measured so far."""
        return LoaderStats(
            clips=self._clips,
            bytes_read=self._pool.bytes_read,
            wait_seconds=self._wait_seconds,
            busy_seconds=self._busy_seconds,
            bad_samples=self._pool.bad_samples,
        )

    def close(self) -> None:
        """End all threads and close all files; the loader can't be used after that."""
        self._finisher.shutdown(wait=True, cancel_futures=True)
        self._pool.close()
        self._engine.close()
        self._reader.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _share(self, consumed: int) -> Share:
        return Share(self.num_samples, consumed, self.rank, self.world_size)

    def _identity(self) -> str:
        """Fingerprint of the shards' content."""
        import hashlib

        return hashlib.sha256("".join(entry.sha256 for entry in self.manifest.shards).encode()).hexdigest()[:16]

    def _start(self, share: Share, number: int, epoch: int) -> Future[tuple[list[Request], torch.Tensor]]:
        positions, padding = share.positions(number, self.batch_size)
        units = permute(positions, size=share.size, seed=self.seed, epoch=epoch)
        samples = self._samples(units, epoch)
        requests = [self._request(int(s), epoch, is_padding=bool(p)) for s, p in zip(samples, padding, strict=True)]
        return self._finisher.submit(self._engine.finish, self._engine.start(requests))

    def _samples(self, units: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """The sample of each unit: itself, or one clip of the video, by (seed, epoch, video)."""
        if self.options.epoch_unit == "clip":
            return units
        first: NDArray[np.int64] = self._index.first_clip[units]
        count = self._index.first_clip[units + 1] - first
        drawn = keyed_integers(units, seed=self.seed, epoch=epoch, purpose=0) % count.astype(np.uint64)
        return first + (drawn.astype(np.int64) if self._augmentation else count // 2)

    def _request(self, sample: int, epoch: int, *, is_padding: bool) -> Request:
        rng = sample_rng(seed=self.seed, epoch=epoch, sample=sample)
        _, height, width = (int(n) for n in self._index.shape[sample])
        frames = self._window.pick(rng)
        region = self._augmentation.region(rng, height, width) if self._augmentation else center_region(height, width)
        return Request(sample, frames, region, is_padding)

    def _stand_in(self, request: Request, attempt: int) -> Request:
        """The next sample of the index for a damaged one; gives up after eight in a row."""
        if attempt > 8:
            raise ShardError(
                f"more than 8 damaged samples in a row, from {self._index.key[request.sample]} back; run `vidpipe verify`"
            )
        sample = (request.sample + 1) % len(self._index)
        return replace(self._request(sample, self._epoch, is_padding=True), is_padding=True)

    def _finish(self, future: Future[tuple[list[Request], torch.Tensor]]) -> Batch:
        requests, video = future.result()
        samples = [request.sample for request in requests]
        return Batch(
            video=video,
            label=torch.from_numpy(self._index.label[samples]).to(video.device),
            key=list(self._index.key[samples]),
            video_path=list(self._index.video[samples]),
            is_padding=torch.tensor([request.is_padding for request in requests], device=video.device),
        )


def _check_arguments(*, batch_size: int, size: int, rank: int, world_size: int) -> None:
    for name, value in (("batch_size", batch_size), ("size", size), ("world_size", world_size)):
        if value < 1:
            raise UsageError(f"{name}: got {value}, expected at least 1")
    if not 0 <= rank < world_size:
        raise UsageError(f"rank: got {rank}, expected 0 to {world_size - 1} (world_size {world_size})")


def _augmentation(options: LoaderOptions, flip_allowed: bool) -> Augmentation:
    flip = flip_allowed if options.horizontal_flip is None else options.horizontal_flip
    return Augmentation(crop_scale=options.crop_scale, crop_ratio=options.crop_ratio, flip=flip)
