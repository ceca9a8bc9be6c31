"""Backends against each other: the same parameters give the same clips, whatever is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vidpipe
from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.augmentation.color import ColorJitter, color_matrix
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.augmentation.transform import ClipTransform, resize_in_floats
from vidpipe.loader.engines.engine import EngineSetup
from vidpipe.loader.engines.torch import TorchDeviceEngine, TorchEngine
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.request import Take, make_request
from vidpipe.shards.manifest import load_manifest

LEVEL = 0.0176  # one of 255, normalised by the smallest standard deviation that is used here
COLOR = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
AFFINE = Affine(rotation=30, shear=10, translation=0.1, scale=(0.5, 1.25), prob=0.7)


@pytest.mark.parametrize(
    ("augment", "options", "largest", "mean", "at_border"),
    [
        pytest.param(None, {}, 1.02, 0.17, 22, id="centre"),
        pytest.param("train", {}, 1.02, 0.17, 22, id="crop"),
        pytest.param("train", {"color_jitter": COLOR}, 6.0, 0.3, None, id="colour"),
        pytest.param("train", {"affine": AFFINE}, 6.0, 0.2, None, id="affine"),
        pytest.param(
            "train", {"color_jitter": COLOR, "affine": AFFINE, "clips_per_sample": 2}, 9.0, 0.3, None, id="all"
        ),
    ],
)
def test_dali_gives_what_torch_gives(
    real_shards: Path,
    augment: str | None,
    options: dict[str, object],
    largest: float,
    mean: float,
    at_border: float | None,
) -> None:
    """Within so many levels of 255, and so many on average; two pixels at the border apart, where torch leaves out what lies
    outside while DALI repeats the last pixel. Both round after resizing, which a change of colours may multiply; an affine map
    shows the border inside.
    """
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    batches = []
    for backend in ("torch", "dali"):
        with vidpipe.Loader(
            real_shards,
            batch_size=14,
            frames=8,
            size=112,
            augment=augment,
            backend=backend,
            seed=5,
            options=vidpipe.LoaderOptions(**options),
        ) as loader:
            batches.append(next(iter(loader)))
    ours, dali = batches
    assert ours.key == dali.key and torch.equal(ours.label, dali.label) and torch.equal(ours.view, dali.view)
    difference = (ours.video - dali.video).abs() / LEVEL
    inner = difference[..., 2:-2, 2:-2]
    assert inner.max() <= largest and inner.mean() <= mean
    assert at_border is None or (difference.max() <= at_border and difference.mean() <= mean)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 0.016)])
def test_the_device_pass_gives_what_the_threads_give(real_shards: Path, dtype: torch.dtype, rounding: float) -> None:
    """The engine that copies a batch to the device first, here with the CPU as the device: within a level, and three in other colours."""
    folder = real_shards / "train"
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    setup = EngineSetup(
        num_frames=3,
        size=64,
        normalization=manifest.normalization,
        dtype=dtype,
        device=torch.device("cpu"),
        max_batch_size=8,
        threads=1,
        warps=False,
        recolors=True,
    )
    color = color_matrix(brightness=0.9, contrast=1.2, saturation=1.1, hue=0.05, grey=110)
    takes = [
        Take([0, 2, 4], Drawn(Region(3, 5, 100, 90, flip=True)), 0),
        Take([9, 10, 15], Drawn(Region(0, 0, 64, 64)), 1),
        Take([1, 3, 5], Drawn(Region(3, 5, 100, 90, flip=True), color=color), 2),
    ]
    requests = [make_request(sample, takes[: 1 + 2 * sample], epoch=0, is_padding=False) for sample in (1, 0)]
    pool = ReadPool(ClipReader(folder, manifest, index), threads=2, frame_bytes=index.frame_bytes)
    batches = []
    for engine in (TorchEngine(pool, setup), TorchDeviceEngine(pool, setup)):
        served, video = engine.finish(engine.start(requests), lambda served, video: (served, video)).value
        assert served == requests and video.shape == (4, 3, 3, 64, 64)
        batches.append(video)
    pool.close()
    threads, device = (batch.float() for batch in batches)
    levels = torch.tensor([1.0, 0.0, 3.0, 1.0])[:, None, None, None, None]
    assert ((threads - device).abs() <= levels * LEVEL + rounding).all()
    alone = torch.empty(3, 3, 64, 64, dtype=dtype)
    stored = ClipReader(folder, manifest, index).read(0, [0, 2, 4], np.empty(3 * index.frame_bytes(0), np.uint8))
    ClipTransform(size=64, normalization=manifest.normalization)(torch.from_numpy(stored), takes[0].drawn, out=alone)
    assert torch.equal(batches[0][3], alone)


@pytest.mark.parametrize("size", [(24, 24), (70, 31), (200, 150)])
def test_resizing_in_floats_is_within_a_level_of_eight_bits(size: tuple[int, int]) -> None:
    """Devices have no antialiased resize of 8 bits; in 8 bits, the first of two passes is rounded too."""
    frames = torch.randint(0, 256, (2, 90, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cut = frames[:, 5:85, 3:63].permute(0, 3, 1, 2)
    in_bytes = F.interpolate(cut, size=size, mode="bilinear", antialias=True)
    in_floats = resize_in_floats(cut, *size)
    assert in_floats.shape == (2, 3, *size)
    assert (in_bytes.float() - in_floats).abs().max() <= 1 and torch.equal(in_floats, in_floats.round().clamp(0, 255))
