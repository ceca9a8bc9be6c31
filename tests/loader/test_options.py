"""What a loader can't be set up with is refused when it is made, with the argument, what was got and what could be."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.engines.backend import make_engine
from vidpipe.loader.engines.engine import EngineSetup
from vidpipe.shards.manifest import Normalization


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epoch_unit", "clips", "'video' or 'clip'"),
        ("check", "CRC32", "'crc' or 'off'"),
        ("on_bad", "ignore", "'raise' or 'skip'"),
        ("balance", "no", "None or 'class'"),
        ("shuffle", "window", "None or 'global' or 'windowed'"),
        ("decode", "nvdec", "'auto' or 'cpu' or 'gpu'"),
        ("horizontal_flip", "no", "None or True or False"),
        ("window", "middle", "None or 'random' or 'center'"),
        ("window", -1, "at least 0"),
        ("views", (1, 2, 3), "two whole numbers, at least 1"),
        ("views", (0, 1), "two whole numbers, at least 1"),
        ("crop_scale", (2, 3), "at most 1"),
        ("crop_scale", (1.0, 0.5), "in order"),
        ("crop_ratio", (0, 1), "above 0"),
        ("crop_ratio", 1.5, "two ratios"),
        ("crop_ratio", (1, float("nan")), "two ratios"),
        ("clips_per_sample", 0, "at least 1"),
        ("threads", 0, "at least 1"),
        ("prefetch_batches", 1.5, "a whole number"),
        ("max_bad", 5, "a share from 0 to 1"),
        ("max_bad", "5%", "a share from 0 to 1"),
        ("cache_gb", 0, "more than 0"),
        ("cache_gb", "x", "a number, more than 0"),
        ("cache_dir", 3, "a path"),
        ("where", 5, "a condition in a string"),
        ("color_jitter", 0.4, "a ColorJitter(brightness=..., ...)"),
        ("normalization", ((0.5,) * 3, (0.5,) * 3), "a Normalization(mean=..., std=...)"),
        ("normalization", Normalization(std=(0.5, 0.0, 0.5)), "std above 0"),
        ("affine", 3, "an Affine(rotation=..., ...)"),
    ],
)
def test_wrong_options(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: got ") as caught:
        vidpipe.LoaderOptions(**{name: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vidpipe.Affine(scale=2), "Affine: scale: got 2: Input should be a valid tuple"),  # type: ignore[arg-type]
        (
            lambda: vidpipe.Affine(scale=(2.0, 1.0)),
            r"Affine: scale: got \(2.0, 1.0\): expected two factors above 0, in order",
        ),
        (lambda: vidpipe.Affine(shear=90, turn=1), "Affine: shear: got 90: .* less than 90; unknown key 'turn'"),  # type: ignore[call-arg]
        (lambda: vidpipe.ColorJitter(hue="x"), "ColorJitter: hue: got 'x': .* valid number"),  # type: ignore[arg-type]
        (lambda: vidpipe.ColorJitter(hue=0.6), r"ColorJitter: hue: got 0\.6: .* less than or equal to 0\.5"),
        (lambda: vidpipe.ColorJitter(contrast=float("inf")), "ColorJitter: contrast: got inf: .* finite"),
        (lambda: vidpipe.RandAugment(ops=0), "RandAugment: ops: got 0: .* greater than or equal to 1"),
        (lambda: vidpipe.Mixing(mixup=-1), "Mixing: mixup: got -1: .* greater than or equal to 0"),
    ],
)
def test_wrong_values_of_augmentations(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "x", "RANK: the environment says 'x', expected a whole number, at least 0"),
        ("WORLD_SIZE", "0", "WORLD_SIZE: the environment says '0', expected a whole number, at least 1"),
        ("LOCAL_WORLD_SIZE", "0", "LOCAL_WORLD_SIZE: the environment says '0', expected a whole number, at least 1"),
    ],
)
def test_what_a_launcher_says_wrongly(
    motion_shards: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        vidpipe.Loader(motion_shards, backend="torch")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("augment", "Train", "None or 'train'"),
        ("backend", "dalli", "'auto' or 'dali' or 'torch'"),
        ("dtype", "float64", "'float32' or 'float16' or 'bfloat16'"),
        ("drop_last", "no", "True or False"),
        ("device", "cudaa", "such as 'cpu' or 'cuda:0'"),
        ("device", "cuda:99", "CUDA devices here"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", 8.0, "a whole number"),
        ("frames", 2.5, "a whole number"),
        ("stride", -2, "at least 1"),
        ("size", 0, "at least 1"),
        ("seed", 2**63, "2^63 - 1"),
        ("rank", 1, "0 to 0 (world_size 1)"),
        ("options", {"check": "off"}, "vidpipe.LoaderOptions(...)"),
    ],
)
def test_wrong_arguments(motion_shards: Path, name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: got ") as caught:
        vidpipe.Loader(motion_shards, **{name: value})
    assert expected in str(caught.value)


def test_an_epoch_without_any_whole_batch(motion_shards: Path) -> None:
    with pytest.raises(UsageError, match="32 clips don't fill one batch of 9 on each of 4 ranks"):
        vidpipe.Loader(motion_shards, batch_size=9, drop_last=True, rank=0, world_size=4)
    with vidpipe.Loader(motion_shards, batch_size=8, drop_last=True, rank=0, world_size=4) as loader:
        assert len(loader) == 1


def test_without_dali_the_log_says_what_torch_and_the_cpu_do_instead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a GPU, so with an engine that is none."""
    monkeypatch.setitem(sys.modules, "vidpipe.loader.engines.dali", None)
    monkeypatch.setattr("vidpipe.loader.engines.torch.TorchDeviceEngine", lambda pool, setup: "engine")
    setup = EngineSetup(
        num_frames=4,
        size=32,
        normalization=Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        dtype=torch.float32,
        device=torch.device("cuda"),
        max_batch_size=1,
        threads=1,
        warps=False,
        recolors=False,
    )
    with caplog.at_level(logging.WARNING, "vidpipe.loader"):
        codecs = frozenset({"jpeg", "tensor"})
        assert make_engine("auto", None, setup, decode="auto", codecs=codecs) == ("torch", "engine")  # type: ignore[arg-type]
    (message,) = [record.message for record in caplog.records if record.name == "vidpipe.loader"]
    assert "DALI can't be imported" in message and message.endswith(
        "backend 'torch' takes its place, and jpeg is decoded on the CPU"
    )
