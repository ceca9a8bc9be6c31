"""Features are given in the loader's way: every sample once, the same for any number of ranks, exactly on after a stop."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from features.backbones import NAME, save_weights
from features.test_make import stored

from vidpipe.errors import BadSampleError, ShardError, StorageError, UsageError
from vidpipe.features.loader import FeatureLoader, FeatureOptions
from vidpipe.features.make import FeatureJob, make_features
from vidpipe.loader import Batch
from vidpipe.shards.manifest import load_manifest


@pytest.fixture(scope="module")
def features(motion_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    save_weights(folder / "weights.safetensors")
    weights = str(folder / "weights.safetensors")
    make_features(
        FeatureJob(shards=motion_shards, out=folder / "out", backbone=NAME, weights=weights, size=32, crops=2)
    )
    return folder / "out"


def opened(features: Path, *, batch_size: int = 5, **options: Any) -> FeatureLoader:
    return FeatureLoader(
        features, split="train", batch_size=batch_size, device="cpu", options=FeatureOptions(**options)
    )


def keys(batches: Iterable[Batch]) -> list[str]:
    return [key for batch in batches for key, padding in zip(batch.key, batch.is_padding, strict=True) if not padding]


def test_an_epoch_gives_what_is_stored(features: Path) -> None:
    samples = {key: (array, label) for key, array, label, _ in stored(features / "train")}
    with opened(features, epoch_unit="clip") as loader:
        batches = list(loader)
        assert loader.epoch == 1
        assert len(loader) == len(batches)
        assert keys(batches) != keys(loader)
    assert sorted(keys(batches)) == sorted(samples)
    for batch in batches:
        assert batch.video.dtype == torch.float32
        for key, video, label in zip(batch.key, batch.video, batch.label, strict=True):
            assert np.array_equal(video.numpy(), samples[key][0].astype(np.float32))
            assert int(label) == samples[key][1]


def test_one_sample_of_each_video(features: Path) -> None:
    with opened(features, random=True) as loader:
        epochs = [list(loader) for _ in range(4)]
    for epoch in epochs:
        videos = [path for batch in epoch for path in batch.video_path]
        assert sorted(videos) == sorted(set(videos))
        assert len(videos) == loader.num_samples == 32
    assert len({key for epoch in epochs for key in keys(epoch)}) > 32  # not always the same crop
    with opened(features) as loader:
        assert all(key.endswith("-001") for key in keys(loader))


def test_windows_are_those_of_clips(features: Path) -> None:
    whole = {key: array for key, array, *_ in stored(features / "train")}
    length = len(next(iter(whole.values())))
    every_other = 2 * load_manifest(features / "train").clip.stride
    with opened(features, frames=4, stride=every_other, epoch_unit="clip") as loader:
        centre = next(iter(loader))
    first = (length - 7 + 1) // 2  # the centre of the places that there are
    expected = whole[centre.key[0]][first : first + 7 : 2]
    assert np.array_equal(centre.video[0].numpy(), expected.astype(np.float32))
    with opened(features, frames=4, random=True, epoch_unit="clip") as loader:
        starts = set()
        for batch in loader:
            for key, video in zip(batch.key, batch.video, strict=True):
                array = whole[key].astype(np.float32)
                starts |= {at for at in range(length - 3) if np.array_equal(array[at : at + 4], video.numpy())}
    assert len(starts) > 2
    with pytest.raises(UsageError, match=f"the clips hold {length}"):
        opened(features, frames=length + 1)


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_share_and_a_state_goes_on_at_any_number(features: Path, world_size: int) -> None:
    with opened(features, epoch_unit="clip") as whole:
        expected = keys(whole)
    with opened(features, epoch_unit="clip") as begun:
        seen = keys(batch for _, batch in zip(range(3), begun, strict=False))
        state = begun.state_dict()
    for rank in range(world_size):
        with opened(features, epoch_unit="clip", rank=rank, world_size=world_size) as rest:
            rest.load_state_dict(state)
            seen += keys(rest)
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed 0 (this loader's is 1)"),
        ({"frames": 4}, "frames 16 (this loader's is 4)"),
        ({"frames": 4, "stride": 4}, "frame_step 1 (this loader's is 2)"),
        ({"random": True}, "random False (this loader's is True)"),
        ({"epoch_unit": "video"}, "epoch_unit 'clip' (this loader's is 'video')"),
    ],
)
def test_a_state_of_other_samples_is_refused(features: Path, options: dict[str, Any], message: str) -> None:
    with opened(features, epoch_unit="clip") as begun:
        state = begun.state_dict()
    with (
        opened(features, **{"epoch_unit": "clip", **options}) as other,
        pytest.raises(UsageError, match=re.escape(message)),
    ):
        other.load_state_dict(state)


def test_a_state_of_other_evenly_spread_frames_is_refused(features: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(features / "train", tmp_path / "train"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["clip"] |= {"sampling": "uniform", "stride": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with opened(folder, frames=4) as spread, opened(folder, frames=4, stride=1) as run:
        with pytest.raises(UsageError, match=r"frame_step 'segments' \(this loader's is 1\)"):
            run.load_state_dict(spread.state_dict())
        spread.load_state_dict(spread.state_dict())


def test_damage_is_named(features: Path, tmp_path: Path, motion_shards: Path) -> None:
    copy = tmp_path / "train"
    copy.mkdir()
    for path in (features / "train").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\x93NUMPY") + 200] ^= 1
    shard.write_bytes(data)
    with opened(copy, epoch_unit="clip") as loader, pytest.raises(BadSampleError, match=r"00000\.tar: sample .*CRC-32"):
        list(loader)
    for code, error in ((errno.EIO, BadSampleError), (errno.ENOMEM, StorageError)):
        failing = mock.patch("os.pread", side_effect=OSError(code, os.strerror(code)))
        with failing, opened(copy) as loader, pytest.raises(error, match=rf"can't be read: {os.strerror(code)}"):
            list(loader)
    shard.write_bytes(data[:-512])
    with opened(copy, epoch_unit="clip") as loader, pytest.raises(ShardError, match="truncated or replaced"):
        list(loader)
    with pytest.raises(ShardError, match="holds frames, not features"):
        opened(motion_shards)
