"""The loader on real shards: both backends, what a batch is, order, resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device

import vidpipe
from vidpipe.errors import ShardError, UsageError
from vidpipe.loader.augmentation.transform import center_clip
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.manifest import load_manifest


def test_an_epoch_gives_every_clip_once_with_its_label(motion_shards: Path, backend: str) -> None:
    with vidpipe.Loader(motion_shards, batch_size=5, size=48, backend=backend) as loader:
        assert loader.backend == backend and loader.num_samples == 32 and len(loader) == 7
        assert "32 samples of 8 classes, 7 batches of [5, 3, 16, 48, 48], rank 0 of 1" in repr(loader)
        first, second = list(loader), list(loader)
        stats = loader.stats()
    assert [len(batch) for batch in first] == [5] * 6 + [2]
    for batch in first:
        assert batch.video.shape == (len(batch), 3, loader.num_frames, 48, 48) and batch.video.dtype == torch.float32
        assert not batch.is_padding.any()
        for label, path in zip(batch.label.tolist(), batch.video_path, strict=True):
            assert path.split("/")[1] == loader.classes[label]
    keys = [[key for batch in epoch for key in batch.key] for epoch in (first, second)]
    assert len(set(keys[0])) == 32 and sorted(keys[0]) == sorted(keys[1]) and keys[0] != keys[1]
    assert stats.clips == 64 and stats.bytes_read > 0 and 0 <= stats.wait_share <= 1


def test_the_centre_crop_is_that_of_predict(motion_shards: Path) -> None:
    """Without augmentation, the loader gives bit for bit what `center_clip` gives for the stored clip."""
    folder = motion_shards / "val"
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    reader = ClipReader(folder, manifest, index)
    with vidpipe.Loader(motion_shards, split="val", batch_size=16, size=48, frames=4, backend="torch") as loader:
        batch = next(iter(loader))
    for place, key in enumerate(batch.key):
        sample = index.key.take(range(len(index))).index(key)
        frames = range(int(index.shape[sample, 0]))
        stored = reader.read(sample, frames, np.empty(len(frames) * index.frame_bytes(sample), np.uint8))
        expected = center_clip(stored, manifest.clip, frames=4, size=48, normalization=manifest.normalization)
        assert torch.equal(batch.video[place], expected)


def test_a_full_size_read_is_the_stored_normalised_tensor(motion_shards: Path) -> None:
    """At the stored size nothing is resampled: the batch is (u8 / 255 - mean) / std."""
    folder = motion_shards / "val"
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    frames = range(int(index.shape[0, 0]))
    room = np.empty(len(frames) * index.frame_bytes(0), np.uint8)
    stored = ClipReader(folder, manifest, index).read(0, frames, room)
    side = min(stored.shape[1:3])
    with vidpipe.Loader(motion_shards, split="val", batch_size=16, size=side, backend="torch") as loader:
        batch = next(iter(loader))
    left = (stored.shape[2] - side) // 2
    mean, std = (np.array(v) for v in (manifest.normalization.mean, manifest.normalization.std))
    expected = ((stored[:, :, left : left + side] / 255 - mean) / std).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(batch.video[batch.key.index(str(index.key[0]))].numpy(), expected, atol=1e-5)


def test_clips_are_normalised_as_asked_whatever_the_shards_say(motion_shards: Path, backend: str) -> None:
    asked = vidpipe.Normalization(mean=(0.43, 0.39, 0.38), std=(0.5, 0.25, 1.0))
    levels = []
    for normalization in (None, asked):
        jitter = vidpipe.ColorJitter(brightness=0.4, contrast=0.4)
        options = vidpipe.LoaderOptions(normalization=normalization, color_jitter=jitter)
        with vidpipe.Loader(motion_shards, size=32, augment="train", backend=backend, options=options) as loader:
            batch, applied = next(iter(loader)), loader.manifest.normalization
            assert loader.state_dict()["content"]["normalization"]["std"] == list(applied.std)
        mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (applied.mean, applied.std))
        levels.append(255 * (batch.video * std + mean))
    assert applied == asked and torch.allclose(*levels, atol=1e-3)


def test_batches_stay_as_they_were_given(motion_shards: Path, backend: str) -> None:
    with vidpipe.Loader(motion_shards, batch_size=4, size=48, backend=backend, augment="train") as loader:
        batches = list(loader)
        copies = [batch.video.clone() for batch in batches]
        list(loader)
    assert all(torch.equal(batch.video, copy) for batch, copy in zip(batches, copies, strict=True))


def test_it_can_be_iterated_in_inference_mode(motion_shards: Path, backend: str) -> None:
    with vidpipe.Loader(motion_shards, batch_size=8, size=32, backend=backend) as loader, torch.inference_mode():
        assert sum(len(batch) for batch in loader) == 32


def test_torchs_default_device_is_the_consumers_alone(motion_shards: Path, backend: str) -> None:
    torch.set_default_device("meta")  # as a script sets it to cuda; anything that is made there has no values
    try:
        with vidpipe.Loader(motion_shards, batch_size=4, size=32, backend=backend, augment="train") as loader:
            normalization = loader.manifest.normalization
            batch = next(iter(loader))
        drawn = {"keys": batch.clip_key, "seed": 0, "epoch": 0}
        policy, mixing = vidpipe.RandAugment(ops=4, prob=1), vidpipe.Mixing(mixup=0.8, cutmix=1.0, erase=1.0)
        video = vidpipe.rand_augment(batch.video, policy=policy, normalization=normalization, **drawn)
        video, target = vidpipe.mix_batch(video, batch.label, num_classes=8, mixing=mixing, **drawn)
    finally:
        torch.set_default_device(None)
    tensors = (batch.video, batch.label, batch.is_padding, batch.view, batch.dataset, video, target)
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert target.sum(dim=1).allclose(torch.ones(4)) and bool(video.isfinite().all())


def test_batches_can_be_moved_by_those_who_move_batches(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, batch_size=4, size=32) as loader:
        batch = next(iter(loader))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, vidpipe.Batch) and moved.key == batch.key
    tensors = (moved.video, moved.label, moved.is_padding, moved.view, moved.dataset)
    assert {tensor.device.type for tensor in tensors} == {"meta"} and batch.video.device.type == "cpu"


def test_batches_show_themselves_in_a_line(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, batch_size=4, size=32) as loader:
        assert repr(next(iter(loader))) == "<Batch of [4, 3, 16, 32, 32] torch.float32 on cpu>"
        assert repr(next(iter(loader.read_batches()))) == "<RawBatch of 4 clips, [16, 64, 72, 3]>"


def test_resume_is_exact_even_at_another_world_size(motion_shards: Path, backend: str) -> None:
    def loader(**options: object) -> vidpipe.Loader:
        return vidpipe.Loader(motion_shards, size=32, augment="train", backend=backend, seed=7, **options)

    with loader(batch_size=4) as whole:
        clips = {key: video for batch in whole for key, video in zip(batch.key, batch.video, strict=True)}
    with loader(batch_size=4) as begun:
        iterator = iter(begun)
        seen = [key for _ in range(3) for key in next(iterator).key]
        state = json.loads(json.dumps(begun.state_dict()))
        following = next(iterator)
    with loader(batch_size=4) as resumed:
        resumed.load_state_dict(state)
        batch = next(iter(resumed))
        assert batch.key == following.key and torch.equal(batch.video, following.video)
    for rank in range(3):
        with loader(batch_size=2, rank=rank, world_size=3) as resumed:
            resumed.load_state_dict(state)
            for batch in resumed:
                for key, video, padding in zip(batch.key, batch.video, batch.is_padding, strict=True):
                    assert torch.equal(video, clips[key])
                    seen += [] if padding else [key]
            assert resumed.epoch == 1
    assert sorted(seen) == sorted(clips)


def test_augmentation_depends_on_epoch_and_never_on_the_batch(motion_shards: Path) -> None:
    epochs = []
    for batch_size in (3, 32):
        with vidpipe.Loader(motion_shards, batch_size=batch_size, size=32, augment="train", backend="torch") as loader:
            for _ in range(2):
                epochs.append({k: v for b in loader for k, v in zip(b.key, b.video, strict=True)})
    assert all(
        torch.equal(epochs[0][key], epochs[2][key]) and torch.equal(epochs[1][key], epochs[3][key]) for key in epochs[0]
    )
    assert not any(torch.equal(epochs[0][key], epochs[1][key]) for key in epochs[0])


def test_windows_are_checked_against_what_is_stored(motion_shards: Path) -> None:
    stored = load_manifest(motion_shards / "train").clip
    with pytest.raises(UsageError, match=rf"but the clips hold {stored.frames} at stride {stored.stride}.*--frames"):
        vidpipe.Loader(motion_shards, frames=stored.frames + 1, backend="torch")
    with pytest.raises(UsageError, match="multiple"):
        vidpipe.Loader(motion_shards, frames=1, stride=stored.stride * 3 + 1, backend="torch")
    with vidpipe.Loader(motion_shards, frames=2, stride=stored.stride * 2, size=32, backend="torch") as loader:
        assert next(iter(loader)).video.shape[2] == 2


def test_unfinished_and_missing_shards_are_refused(tmp_path: Path, motion_shards: Path) -> None:
    with pytest.raises(ShardError, match="no such folder"):
        vidpipe.Loader(tmp_path / "absent")
    with pytest.raises(ShardError, match=r"00000\.tar: is a file; expected a folder that `vidpipe prep` wrote"):
        vidpipe.Loader(motion_shards / "train" / "00000.tar")
    with pytest.raises(ShardError, match="no split 'test'; there are: train, val"):
        vidpipe.Loader(motion_shards, split="test")
    with pytest.raises(UsageError, match=r"split: got 'val', but .*train is the split 'train' itself; ask for that"):
        vidpipe.Loader([motion_shards, motion_shards / "train"], split="val")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "test").symlink_to(motion_shards / "val")  # a data set's own name for it
    with vidpipe.Loader(tmp_path / "linked", split="test") as loader:
        assert loader.manifest.split == "val"
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "00000.tar").touch()
    with pytest.raises(ShardError, match="unfinished"):
        vidpipe.Loader(tmp_path)
