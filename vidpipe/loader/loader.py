"""The loader: shards in, batches of clips out, in an order that depends on nothing but seed and epoch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch

from vidpipe.environment import check_rank, rank_and_world_size
from vidpipe.errors import ShardError, UsageError
from vidpipe.loader.assemble import make_batch, make_raw_batch, to_consumer
from vidpipe.loader.batch import Batch, RawBatch
from vidpipe.loader.engines.engine import EngineSetup, Made
from vidpipe.loader.options import (
    Augment,
    Backend,
    Dtype,
    LoaderOptions,
    check_choices,
    check_numbers,
    check_readers,
    check_together,
)
from vidpipe.loader.reading.pool import default_threads
from vidpipe.loader.reading.source import Source
from vidpipe.loader.reading.splits import Shards
from vidpipe.loader.reading.tasks import Reading
from vidpipe.loader.request import Request
from vidpipe.loader.sampling.place import EpochSetter, Place, Spot
from vidpipe.loader.sampling.planner import make_planner
from vidpipe.loader.sampling.window import split_windows
from vidpipe.loader.state import VERSION, check_state, content_of
from vidpipe.loader.stats import LoaderStats, Meter
from vidpipe.loader.transfer import find_device
from vidpipe.loader.workers import Workers
from vidpipe.shards.codecs.base import Frames

Started = TypeVar("Started")
Finished = TypeVar("Finished")
AnyBatch = TypeVar("AnyBatch", Batch, RawBatch)


class Loader:
    """Batches of one split, epoch after epoch; an iterable for anyone's training loop.

    Iterating gives what is left of the current epoch; then `epoch` has advanced by one. Where nothing is left, because a loop
    took the last batch and didn't ask for more, it gives the next epoch. Without augmentation it does so too after a loop that
    was broken off: what is evaluated is a whole epoch, whatever was looked at before, unless `load_state_dict` or pickling
    named a place. Batches are prepared ahead in the background and each is the consumer's own: it is not written to again.

    Args:
        shards: a data-set folder with splits, or a split's own: a path or any URL that fsspec knows, such as
            s3://bucket/kinetics400. Several at once, as a sequence, are united by class name; as a mapping from folder to
            weight, the weights are their shares of every epoch.
        split: which one; by default `train`, or whichever one a split's own folder is.
        batch_size: clips a batch, for each rank.
        frames, stride: of the clips given, within those stored (see `frame_window`); as stored by default. `stride` is in
            native source frames.
        size: side of the square input in pixels.
        augment: `train` for random crops (and flips, where the data allow them), None for a centred crop.
        device: where batches are wanted.
        backend: `dali`, `torch`, or `auto`: DALI on a GPU where it can be imported, else torch, which is two to three times
            as fast as DALI on the CPU (docs/benchmarks.md).
        dtype: of the batches' clips: `float32`, `float16` or `bfloat16`.
        seed: of order and augmentation.
        drop_last: leave out the last batch if it is short.
        rank, world_size: of this process; by default those of torch.distributed where it is initialised, else RANK and
            WORLD_SIZE of the environment, else 0 of 1.
        options: rarer settings.

    Raises:
        ShardError: the shards are absent, unfinished or damaged.
        UsageError: an argument doesn't fit the shards.
        MissingExtraError: `backend="dali"` where DALI isn't installed.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        split: str | None = None,
        batch_size: int = 32,
        frames: int | None = None,
        stride: int | None = None,
        size: int = 224,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        dtype: Dtype = "float32",
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        options: LoaderOptions | None = None,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self.options = LoaderOptions() if options is None else options
        if not isinstance(self.options, LoaderOptions):
            raise UsageError(f"options: got {options!r}, expected vidpipe.LoaderOptions(...)")
        ours = rank_and_world_size() if rank is None or world_size is None else (rank, world_size)
        self.rank = ours[0] if rank is None else rank
        self.world_size = ours[1] if world_size is None else world_size
        check_choices(augment=augment, backend=backend, dtype=dtype, drop_last=drop_last)
        check_numbers(batch_size=batch_size, size=size, seed=seed, rank=self.rank, world_size=self.world_size)
        self.batch_size, self.size, self.seed = batch_size, size, seed
        random = augment == "train"
        check_together(self.options, augmented=random, batch_size=batch_size)
        self._batch_samples = batch_size // self.options.clips_per_sample  # or views
        target = find_device(device)
        check_readers(self.options, backend=backend, on_cpu=target.type == "cpu")
        self._source = Source(shards, split, options=self.options)
        weakref.finalize(self, self._source.stop)
        self.manifest = self._source.manifest
        window = self.options.window if self.options.window is not None else "random" if random else "center"
        self._windows = split_windows(self._source.splits, frames=frames, stride=stride, window=window)
        self._planner = make_planner(self._source, self._windows, self.options, augmented=random, size=size, seed=seed)
        self._place = Place(
            self.num_samples,
            batch_size=self._batch_samples,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=drop_last,
            whole_passes=not random,
        )
        self._meter = Meter()
        if len(self) == 0:
            raise UsageError(
                f"drop_last: {self.num_samples} clips don't fill one batch of {batch_size} on each of {self.world_size} "
                "ranks; take a smaller batch_size, or drop_last=False"
            )
        codecs = [split.manifest.codec for split in self._source.splits]
        setup = EngineSetup(
            num_frames=self.num_frames,
            size=size,
            normalization=self.manifest.normalization,
            dtype=getattr(torch, dtype),
            device=target,
            max_batch_size=batch_size,
            threads=self.options.threads or default_threads(codecs, target.type),
            warps=self.options.affine is not None,
            recolors=self.options.color_jitter is not None,
        )
        across = self.options.prefetch_across_epochs
        self._workers = Workers(
            self._source,
            self.options,
            setup,
            backend=backend,
            stand_in=self._planner.stand_in,
            following=self._place.following,
            across_epochs=random if across is None else across,
        )
        self.backend, self.readers = self._workers.backend, self._workers.readers

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels index them."""
        return self.manifest.classes

    @property
    def num_frames(self) -> int:
        """T of the batches."""
        return self._windows[0].frames

    @property
    def num_samples(self) -> int:
        """Samples (or views) that an epoch gives, over all ranks and without padding."""
        return self._planner.num_positions

    @property
    def epoch(self) -> int:
        """The epoch under way: within a loop that of its batch, else the one that the next batch belongs to."""
        return self._place.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; does nothing while batches of that epoch are left that iterating would give."""
        self._place.set_epoch(epoch)

    @property
    def sampler(self) -> EpochSetter:
        """For trainers that call `loader.sampler.set_epoch(epoch)` as an epoch begins; that takes a loader forward, never back."""
        return EpochSetter(self._place, self.batch_size)

    batch_sampler = sampler  # Lightning expects both, or neither

    def __repr__(self) -> str:
        names = ", ".join(split.name for split in self._source.splits)
        return (
            f"<Loader of {names}: {self.num_samples} samples of {len(self.classes)} classes, {len(self)} batches of "
            f"[{self.batch_size}, 3, {self.num_frames}, {self.size}, {self.size}], rank {self.rank} of {self.world_size}>"
        )

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self._place)

    def __getitem__(self, _: object) -> NoReturn:
        raise UsageError(
            "loader: gives batches, one after the other, and no sample by its number, as a torch DataLoader around it asks for: "
            "write `for batch in loader`; it batches, shuffles, reads ahead and shares out among ranks by itself"
        )

    def __iter__(self) -> Iterator[Batch]:
        engine = self._workers.engine

        def finish(started: object) -> Made[Batch]:
            return engine.finish(started, partial(make_batch, self._source))

        return self._run("clips", engine.start, finish, to_consumer)

    def read_batches(self) -> Iterator[RawBatch]:
        """As iterating, but clips as they are stored, in memory that is the consumer's own, without any transform.

        The frames are those that iterating gives; crops and all other augmentation are left out.
        """

        def finish(reading: Reading[Frames]) -> RawBatch:
            return make_raw_batch(self._source, reading.results())

        return self._run("stored clips", self._workers.pool.read, finish, lambda batch: batch)

    def _run(
        self,
        kind: str,
        start: Callable[[list[Request]], Started],
        finish: Callable[[Started], Finished],
        hand_over: Callable[[Finished], AnyBatch],
    ) -> Iterator[AnyBatch]:
        """What is left of the epoch, or the next one."""
        if self._arguments["rank"] is None and self._arguments["world_size"] is None:
            check_rank(self.rank, self.world_size)

        def batches(first: Spot, number: int) -> Iterator[AnyBatch]:
            made = self._workers.background.run(
                first,
                number,
                kind=kind,
                start=lambda spot: start(self._requests(spot)),
                finish=finish,
                hand_over=hand_over,
            )
            return self._meter.timed(made)

        return self._place.run(batches)

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is, as small JSON: the same for all ranks after the same number of batches.

        After an epoch's last batch it is the start of the next one.
        """
        augment = self._arguments["augment"]
        content = content_of(self.options, self._source, self._windows, seed=self.seed, size=self.size, augment=augment)
        spot = self._place.next
        return {"version": VERSION, "epoch": spot.epoch, "consumed": spot.consumed, "content": content}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly after the last batch that was given when `state` was taken, at any world size, with a new iterator.

        Batch size, device, backend, threads and whatever else changes neither the clips nor their order may differ.

        Raises:
            UsageError: the state is of other shards, another seed or other clips, or has no place in their order; nothing is
                changed then.
        """
        check_state(state, self.state_dict(), num_samples=self.num_samples)
        self._place.load(Spot(state["epoch"], state["consumed"]))

    def stats(self) -> LoaderStats:
        """What was measured so far."""
        return LoaderStats(
            clips=self._meter.clips,
            bytes_read=self._source.bytes_read + self._workers.pool.bytes_read,
            wait_seconds=self._meter.wait_seconds,
            busy_seconds=self._meter.busy_seconds,
            bad_samples=self._workers.quarantine.num_samples,
        )

    @property
    def errors(self) -> tuple[ShardError, ...]:
        """What was damaged so far: one for each sample (`BadSampleError`), and one for each shard that is out."""
        return self._workers.quarantine.errors

    def close(self) -> None:
        """End all threads and close all files; the loader can't be used after that. In a fork, which has none, it does nothing."""
        self._workers.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A loader goes to another process as what it was made with and its place; it is made anew there."""
        arguments = self._arguments
        if self.world_size > 1:  # torch.distributed, which says so here, is not initialised there
            arguments = {**arguments, "rank": self.rank, "world_size": self.world_size}
        return _remade, (arguments, self._place.next)

    def _requests(self, spot: Spot) -> list[Request]:
        positions, padding = self._place.share(spot).positions(self._batch_samples)
        ahead = self._planner.shards_ahead(spot.consumed, spot.epoch)
        self._source.prefetch(ahead, rank=self.rank, world_size=self.world_size)
        return self._planner.requests(positions, padding, spot.epoch)


def _remade(arguments: dict[str, Any], spot: Spot) -> Loader:
    loader = Loader(**arguments)
    loader._place.go(spot)
    return loader
