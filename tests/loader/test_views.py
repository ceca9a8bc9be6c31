"""Test views: each video's T windows times S crops, as entries of the batches."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loader.damage import copied, garbage

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.transform import normalization_tables
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.manifest import load_manifest


@pytest.fixture(scope="module")
def four_clips(tmp_path_factory: pytest.TempPathFactory, session_command: object) -> Path:
    """A `motion` split of 8 videos, with two stored clips of 12 frames of each, wider than high."""
    out = tmp_path_factory.mktemp("views") / "shards"
    settings = ("--set", "train_videos=1", "--set", "val_videos=1", "--frames", 12, "--clips", 2, "--crop", "48x32")
    assert session_command("prep", "motion", "--out", out, *settings) == 0  # type: ignore[operator]
    return out


def _stored(folder: Path) -> dict[str, list[np.ndarray]]:
    """Each video's stored clips, uint8 [T, H, W, 3], in order."""
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    reader = ClipReader(folder, manifest, index)
    videos: dict[str, list[np.ndarray]] = defaultdict(list)
    for sample in range(len(index)):
        frames = range(int(index.shape[sample, 0]))
        out = np.empty(len(frames) * index.frame_bytes(sample), np.uint8)
        videos[str(index.video[sample])].append(reader.read(sample, frames, out))
    return videos


def test_each_video_gives_its_windows_and_crops_once(four_clips: Path, backend: str) -> None:
    """Four windows of 4 frames x 3 crops: frames 0-3 and 8-11 of each stored clip, at the left, the middle and the right."""
    stored = _stored(four_clips / "val")
    options = vidpipe.LoaderOptions(views=(4, 3))
    with vidpipe.Loader(
        four_clips, split="val", batch_size=5, frames=4, size=32, backend=backend, options=options
    ) as loader:
        assert loader.num_samples == 8 * 12 and len(loader) == 20
        scale, shift = normalization_tables(loader.manifest.normalization)
        seen: dict[str, dict[int, torch.Tensor]] = defaultdict(dict)
        for batch in loader:
            assert not batch.is_padding.any()
            for path, view, video in zip(batch.video_path, batch.view.tolist(), batch.video, strict=True):
                assert view not in seen[path]
                seen[path][view] = video
    assert seen.keys() == stored.keys()
    for path, views in seen.items():
        assert sorted(views) == list(range(12))
        for view, video in views.items():
            window, crop = divmod(view, 3)
            clip = stored[path][window // 2][8 * (window % 2) :][:4, :, 8 * crop : 8 * crop + 32]
            expected = torch.from_numpy(clip.copy()).permute(3, 0, 1, 2) * scale + shift
            torch.testing.assert_close(video, expected, atol=1e-5, rtol=0)


def evenly_sampled(folder: Path, to: Path) -> Path:
    """A copy of a split whose manifest says so."""
    copy = Path(shutil.copytree(folder, to / "even"))
    manifest = load_manifest(copy)
    clip = manifest.clip.model_copy(update={"sampling": "uniform", "stride": 1})
    manifest.model_copy(update={"clip": clip}).write(copy)
    return copy


def test_windows_of_evenly_spread_frames_lie_between_each_other(four_clips: Path, tmp_path: Path) -> None:
    """Two of each stored clip: every other frame, from the first and from the second one on."""
    stored, even = _stored(four_clips / "val"), evenly_sampled(four_clips / "val", tmp_path)
    options = vidpipe.LoaderOptions(views=(4, 1))
    with vidpipe.Loader(even, batch_size=32, frames=6, size=32, backend="torch", options=options) as loader:
        scale, shift = normalization_tables(loader.manifest.normalization)
        (batch,) = loader
    for path, view, video in zip(batch.video_path, batch.view.tolist(), batch.video, strict=True):
        clip = stored[path][view // 2][view % 2 :: 2, :, 8:40]
        expected = torch.from_numpy(clip.copy()).permute(3, 0, 1, 2) * scale + shift
        torch.testing.assert_close(video, expected, atol=1e-5, rtol=0)


def test_one_window_is_the_middle_of_the_middle_clip(four_clips: Path) -> None:
    batches = []
    for options in (vidpipe.LoaderOptions(views=(1, 1)), vidpipe.LoaderOptions()):
        with vidpipe.Loader(
            four_clips, split="val", batch_size=8, frames=4, size=32, backend="torch", options=options
        ) as loader:
            (batch,) = loader
            batches.append(dict(zip(batch.key, batch.video, strict=True)))
    views, plain = batches
    assert views.keys() == plain.keys() and all(torch.equal(views[key], plain[key]) for key in plain)


def test_views_are_of_the_clips_that_fulfil_the_condition(four_clips: Path, tmp_path: Path) -> None:
    """Of each video's two clips one begins before half a second; two views of a damaged one are those of a stand-in's."""
    options = vidpipe.LoaderOptions(views=(2, 1), where="clip == 0", on_bad="skip", max_bad=0.5)
    damage = copied(four_clips / "val", tmp_path, sample=0)
    damage.overwrite(garbage)
    with vidpipe.Loader(damage.folder, batch_size=6, frames=4, size=32, backend="torch", options=options) as loader:
        assert loader.num_samples == 8 * 2
        entries = [
            (key, int(view), bool(padding))
            for batch in loader
            for key, view, padding in zip(batch.key, batch.view, batch.is_padding, strict=True)
        ]
    first = {damage.index.key[sample] for sample in damage.index.first_clip[:-1].tolist()}
    assert {key for key, *_ in entries} == first - {damage.key}
    assert Counter((key, view) for key, view, padding in entries if not padding) == Counter(
        {(key, view): 1 for key in first - {damage.key} for view in range(2)}
    )
    with pytest.raises(UsageError, match="20 windows, but 4 frames have 9 places in each of the 1 stored clips"):
        vidpipe.Loader(damage.folder, frames=4, options=replace(options, views=(20, 1)))


def test_views_resume_and_divide_among_ranks(four_clips: Path) -> None:
    def loader(**settings: object) -> vidpipe.Loader:
        options = vidpipe.LoaderOptions(views=(2, 3))
        return vidpipe.Loader(four_clips, split="val", frames=4, size=32, backend="torch", options=options, **settings)

    def entries(batch: vidpipe.Batch) -> list[tuple[str, int]]:
        listed = zip(batch.video_path, batch.view.tolist(), batch.is_padding.tolist(), strict=True)
        return [(path, view) for path, view, padding in listed if not padding]

    with loader(batch_size=7) as begun:
        iterator = iter(begun)
        seen = entries(next(iterator)) + entries(next(iterator))
        state = begun.state_dict()
        iterator.close()
    for rank in range(3):
        with loader(batch_size=4, rank=rank, world_size=3) as resumed:
            resumed.load_state_dict(state)
            for batch in resumed:
                seen += entries(batch)
    assert len(seen) == 48 and len(set(seen)) == 48


def test_ranks_read_no_more_than_one_process_does(four_clips: Path) -> None:
    """Batches of two videos' views: whatever the number of ranks, the views of a clip are one read."""
    read = []
    for world_size in (1, 2, 4):
        read.append(0)
        for rank in range(world_size):
            with vidpipe.Loader(
                four_clips,
                split="val",
                batch_size=12,
                frames=4,
                size=32,
                backend="torch",
                rank=rank,
                world_size=world_size,
                options=vidpipe.LoaderOptions(views=(2, 3)),
            ) as loader:
                assert sum(len(batch) for batch in loader) == 48 // world_size
                read[-1] += loader.stats().bytes_read
    assert read == [read[0]] * 3


def test_views_that_dont_fit_are_refused(four_clips: Path, tmp_path: Path) -> None:
    def refused(message: str, *, shards: object = four_clips, **settings: object) -> None:
        options = vidpipe.LoaderOptions(**{"views": (2, 3), **settings.pop("options", {})})  # type: ignore[call-overload]
        with pytest.raises(UsageError, match=message):
            vidpipe.Loader(shards, split="val", size=32, backend="torch", options=options, **{"frames": 4, **settings})

    refused(
        r"20 windows, but 4 frames have 9 places in each of the 2 stored clips of 12.*18", options={"views": (20, 1)}
    )
    refused(r"4 windows, but 12 frames have 1 places", frames=12, options={"views": (4, 1)})
    refused("augment='train'", augment="train")
    refused("views: got 2 data sets, expected one", shards=[four_clips, four_clips])
    even = evenly_sampled(four_clips / "val", tmp_path)
    refused("frames: got 5, but the clips hold 12 evenly spread frames: expected a divisor", shards=even, frames=5)
    refused("5 windows, but 6 frames have 2 places in each of the 2", shards=even, frames=6, options={"views": (5, 1)})
    refused("window='center'", options={"window": "center"})
    refused("epoch_unit='clip'", options={"epoch_unit": "clip"})
