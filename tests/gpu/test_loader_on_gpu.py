"""On a GPU, both backends give what the torch reference gives on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vidpipe

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", ["dali", "torch"])
@pytest.mark.parametrize("augment", [None, "train"])
def test_batches_equal_the_reference(
    motion_shards: Path, cuda: torch.device, backend: str, augment: str | None
) -> None:
    options = {"batch_size": 8, "size": 48, "augment": augment, "seed": 3}
    with vidpipe.Loader(motion_shards, backend="torch", **options) as reference:
        expected = list(reference)
    with vidpipe.Loader(motion_shards, backend=backend, device=cuda, **options) as loader:
        batches = list(loader)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.video.device == cuda and batch.label.device == cuda and batch.key == other.key
        difference = (batch.video.cpu() - other.video).abs()
        assert difference[..., 2:-2, 2:-2].max() < 0.018 and difference.mean() < 0.003
