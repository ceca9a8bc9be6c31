"""What is prepared before it is asked for: over the end of an epoch, from one iterator to the next, and of the right epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from loader.damage import copied, garbage

import vidpipe
from vidpipe.loader.reading.source import Source

LOADER = {"batch_size": 4, "size": 32, "frames": 2, "augment": "train", "backend": "torch", "seed": 5}
SAMPLES = 32


class Reads:
    """Counts what loaders read, and refuses it if told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.allowed = 0, True
        read = Source.read

        def counted(source: Source, *args: Any) -> Any:
            assert self.allowed, "nothing may be read any more"
            self.count += 1
            return read(source, *args)

        patch.setattr(Source, "read", counted)

    def settle(self, count: int) -> None:
        """Wait for so many reads."""
        deadline = time.monotonic() + 60
        while self.count < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.count == count


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def given(loader: vidpipe.Loader, epochs: int) -> Iterator[tuple[int, list[str], list[bool], torch.Tensor]]:
    for _ in range(epochs):
        for batch in loader:
            yield loader.epoch, batch.key, batch.is_padding.tolist(), batch.video


@pytest.mark.parametrize("loop", ["exhausted", "islice"])
def test_the_next_epochs_first_batches_are_ready_when_it_begins(motion_shards: Path, reads: Reads, loop: str) -> None:
    options = vidpipe.LoaderOptions(prefetch_batches=2)
    with vidpipe.Loader(motion_shards, **LOADER, options=options) as loader:
        expected = [keys for epoch, keys, *_ in given(loader, 2) if epoch == 1]
    reads.count = 0
    with vidpipe.Loader(motion_shards, **LOADER, options=options) as loader:
        for _ in islice(loader, len(loader)) if loop == "islice" else loader:
            pass
        reads.settle(SAMPLES + 2 * 4)
        reads.allowed = False
        batches = iter(loader)
        assert loader.epoch == 1 and [next(batches).key, next(batches).key] == expected[:2]
        with pytest.raises(AssertionError, match="nothing may be read"):
            next(batches)


@pytest.mark.parametrize(
    ("augment", "options"),
    [(None, {}), ("train", {"prefetch_across_epochs": False}), ("train", {"prefetch_batches": 0})],
)
def test_a_single_pass_reads_nothing_of_the_next_epoch(
    motion_shards: Path, reads: Reads, augment: str | None, options: dict[str, Any]
) -> None:
    arguments = {**LOADER, "augment": augment, "options": vidpipe.LoaderOptions(**options)}
    with vidpipe.Loader(motion_shards, **arguments) as loader:
        assert len(list(loader)) == 8
    assert reads.count == SAMPLES


def test_a_loop_that_stops_and_goes_on_reads_nothing_twice(motion_shards: Path, reads: Reads) -> None:
    options = vidpipe.LoaderOptions(prefetch_across_epochs=False)
    with vidpipe.Loader(motion_shards, **LOADER, options=options) as loader:
        keys = [key for _ in range(4) for batch in islice(loader, 2) for key in batch.key]
        assert loader.epoch == 1
    assert len(set(keys)) == reads.count == SAMPLES


@pytest.mark.parametrize("options", [{}, {"balance": "class", "shuffle": "windowed", "shuffle_window": 2}])
def test_damage_is_stood_in_for_alike_whether_an_epoch_was_begun_before_or_not(
    motion_shards: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """What stands in is drawn by the epoch that the batch is of, not by the one that the consumer is in meanwhile."""
    damage = copied(motion_shards / "train", tmp_path)
    damage.overwrite(garbage)

    def run(across: bool) -> list[tuple[int, list[str], list[bool], torch.Tensor]]:
        skip = vidpipe.LoaderOptions(on_bad="skip", prefetch_batches=8, prefetch_across_epochs=across, **options)
        with vidpipe.Loader(damage.folder, **LOADER, options=skip) as loader:
            return list(given(loader, 4))

    across, within = run(True), run(False)
    assert sum(any(padding) for _, _, padding, _ in within) >= 4
    assert [batch[:3] for batch in across] == [batch[:3] for batch in within]
    assert all(torch.equal(one[3], other[3]) for one, other in zip(across, within, strict=True))


def test_going_elsewhere_drops_what_was_begun(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        epochs = [[keys for at, keys, *_ in given(loader, 1)] for _ in range(4)]
        for epoch in (3, 0, 2):
            loader.set_epoch(epoch)
            assert [batch.key for batch in loader] == epochs[epoch]
        loader.set_epoch(0)
        assert next(iter(loader)).key == epochs[0][0]
        raw = next(loader.read_batches())  # clips as stored, where those for the model were begun
        assert raw.key == epochs[0][1] and raw.video.shape[1] == 2
        assert next(iter(loader)).key == epochs[0][2]
