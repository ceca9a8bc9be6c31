"""Loaders in the hands of trainers that know torch's DataLoader: they tell epochs to its sampler, or wrap it around whatever they get."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

import vidpipe
from vidpipe.errors import UsageError

LOADER: dict[str, Any] = {"batch_size": 8, "size": 32, "augment": "train", "backend": "torch"}


def keys(loader: vidpipe.Loader, batches: int | None = None) -> list[str]:
    return [key for batch in islice(loader, batches) for key in batch.key]


@pytest.fixture(scope="module")
def epochs(motion_shards: Path) -> list[list[str]]:
    """The keys of four epochs, in their order."""
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        return [keys(loader) for _ in range(4)]


def test_a_trainer_that_leaves_the_rest_of_an_epoch_tells_the_next_one(
    motion_shards: Path, epochs: list[list[str]]
) -> None:
    """As Lightning does it with `limit_train_batches`."""
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        for epoch in range(3):
            assert loader.batch_sampler.batch_size == 8
            loader.batch_sampler.sampler.set_epoch(epoch)
            assert keys(loader, 3) == epochs[epoch][:24]


def test_a_new_loader_takes_the_epoch_that_it_is_told(motion_shards: Path, epochs: list[list[str]]) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        loader.sampler.set_epoch(2)
        assert keys(loader) == epochs[2]
        for nonsense in (-1, "1"):
            with pytest.raises(UsageError, match=f"epoch: got {nonsense!r}, expected a whole number"):
                loader.sampler.set_epoch(nonsense)


def test_a_trainer_never_sends_a_loader_back(motion_shards: Path, epochs: list[list[str]]) -> None:
    """Where its counts begin anew, or are behind as it goes through the data more than once in one of its epochs."""
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        loader.set_epoch(1)
        assert keys(loader, 2) == epochs[1][:16]
        state = loader.state_dict()
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        loader.load_state_dict(state)
        loader.sampler.set_epoch(0)
        assert keys(loader) == epochs[1][16:]
        loader.sampler.set_epoch(1)
        assert keys(loader) == epochs[2]


def test_counts_that_are_ahead_of_an_epoch_that_was_loaded_stay_ahead(
    motion_shards: Path, epochs: list[list[str]]
) -> None:
    """Lightning with `max_steps` counts an epoch more when it goes on from an epoch's end."""
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        keys(loader)
        state = loader.state_dict()
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        loader.load_state_dict(state)
        for count, epoch in ((1, None), (2, 1), (3, 2), (4, 3)):
            loader.sampler.set_epoch(count)
            if epoch is not None:
                assert keys(loader, 3) == epochs[epoch][:24]


def test_a_data_loader_around_a_loader_says_what_to_write_instead(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        for workers in (0, 1):
            with pytest.raises(UsageError, match=r"loader: gives batches, .*: write `for batch in loader`"):
                next(iter(DataLoader(loader, num_workers=workers)))  # type: ignore[arg-type]


class Wrapped(IterableDataset[vidpipe.Batch]):
    """A loader of its own in each worker."""

    def __init__(self, shards: Path, **arguments: Any) -> None:
        self._shards, self._arguments = shards, {**LOADER, **arguments}

    def __iter__(self) -> Iterator[vidpipe.Batch]:
        with vidpipe.Loader(self._shards, **self._arguments) as loader:
            yield from loader


def test_workers_that_would_all_give_the_same_clips_are_refused(motion_shards: Path, epochs: list[list[str]]) -> None:
    context = multiprocessing.get_context("fork")
    one = DataLoader(Wrapped(motion_shards), batch_size=None, num_workers=1, multiprocessing_context=context)
    assert [key for batch in one for key in batch.key] == epochs[0]
    two = DataLoader(Wrapped(motion_shards), batch_size=None, num_workers=2, multiprocessing_context=context)
    with pytest.raises(UsageError, match="in each of a DataLoader's 2 workers, all of which would give the same"):
        list(two)
    told = Wrapped(motion_shards, rank=0, world_size=4)
    assert len(list(DataLoader(told, batch_size=None, num_workers=2, multiprocessing_context=context))) == 2
