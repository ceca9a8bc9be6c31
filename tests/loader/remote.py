"""Clips of shards at a URL, for comparison, and files changed there."""

from __future__ import annotations

from typing import Any

import torch

import vidpipe

LOADER = {"batch_size": 4, "size": 32, "augment": "train", "backend": "torch", "seed": 2}
WINDOW = {"shuffle": "windowed", "shuffle_window": 1}


def clips(shards: Any, *, epochs: int = 1, **options: Any) -> list[tuple[list[str], torch.Tensor]]:
    with vidpipe.Loader(shards, options=vidpipe.LoaderOptions(**options), **LOADER) as loader:
        return [(batch.key, batch.video) for _ in range(epochs) for batch in loader]


def assert_equal(found: list[tuple[list[str], torch.Tensor]], expected: list[tuple[list[str], torch.Tensor]]) -> None:
    assert [keys for keys, _ in found] == [keys for keys, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))
