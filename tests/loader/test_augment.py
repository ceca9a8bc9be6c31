"""Augmentation: what is drawn, by what key, what is refused, and several clips of one read."""

from __future__ import annotations

import colorsys
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.affine import Affine, affine_map, warp_region
from vidpipe.loader.augmentation.augment import Drawn, sample_rng
from vidpipe.loader.augmentation.color import ColorJitter, color_matrix
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.augmentation.transform import ClipTransform
from vidpipe.shards.manifest import Normalization

COLOR = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
AFFINE = Affine(rotation=20, shear=10, translation=0.1, scale=(0.8, 1.25))
LEVELS = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def frames() -> np.ndarray:
    """uint8 [2, 64, 64, 3]: smooth colours with edges."""
    y, x = np.mgrid[:64, :64]
    picture = np.stack([4 * x, 4 * y, np.where((x // 16 + y // 16) % 2, 200, 40)], axis=2)
    return np.stack([picture, picture[::-1]]).astype(np.uint8)


def _transformed(frames: np.ndarray, drawn: Drawn, *, size: int = 64) -> np.ndarray:
    """The clip in levels, float32 [T, size, size, 3]."""
    out = torch.empty(3, len(frames), size, size)
    ClipTransform(size=size, normalization=LEVELS)(torch.from_numpy(frames), drawn, out=out)
    return 255 * out.permute(1, 2, 3, 0).numpy()


def _recolored(frames: np.ndarray, **changes: float) -> np.ndarray:
    same = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "grey": 100.0}
    return _transformed(frames, Drawn(Region(0, 0, 64, 64), None, color_matrix(**{**same, **changes})))


def test_colours_change_as_torchvision_changes_them(frames: np.ndarray) -> None:
    floats = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    for changes, expected in (
        ({"brightness": 1.4}, tv.adjust_brightness(floats, 1.4)),
        ({"brightness": 0.5}, tv.adjust_brightness(floats, 0.5)),
        ({"saturation": 0.2}, tv.adjust_saturation(floats, 0.2)),
        ({"saturation": 1.7}, tv.adjust_saturation(floats, 1.7)),
        ({"contrast": 0.6}, ((floats - 100 / 255) * 0.6 + 100 / 255).clamp(0, 1)),
    ):
        np.testing.assert_allclose(
            _recolored(frames, **changes), 255 * expected.permute(0, 2, 3, 1).numpy(), atol=0.1, err_msg=str(changes)
        )


def test_hue_turns_the_chroma_and_keeps_the_luma() -> None:
    """Against the standard library's YIQ, whose coefficients are rounded to two digits."""
    color = np.array([0.7, 0.4, 0.3])
    matrix = color_matrix(brightness=1, contrast=1, saturation=1, hue=0.1, grey=0)
    y, i, q = colorsys.rgb_to_yiq(*color)
    turned = (i + 1j * q) * np.exp(-2j * np.pi * 0.1)
    np.testing.assert_allclose(
        matrix[:, :3] @ color + matrix[:, 3] / 255, colorsys.yiq_to_rgb(y, turned.real, turned.imag), atol=0.01
    )
    red, green, blue = matrix[:, :3] @ [1, 0, 0]
    assert red > green > blue


def test_an_affine_map_moves_the_picture_as_torchvision_does(frames: np.ndarray) -> None:
    """Where no border is in view; torchvision's shear has the other sign."""
    moved = affine_map(degrees=25, shear_degrees=10, shift=(3, -5), scale=1.1, center=(32, 32))
    for flip in (False, True):
        region, warp = warp_region(moved, Region(16, 16, 32, 32, flip), size=32, height=64, width=64)
        ours = _transformed(frames, Drawn(region, warp), size=32)
        floats = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        expected = tv.affine(
            floats, angle=25, translate=[3, -5], scale=1.1, shear=[-10, 0], interpolation=tv.InterpolationMode.BILINEAR
        )[:, :, 16:48, 16:48]
        expected = expected.flip(3) if flip else expected
        np.testing.assert_allclose(ours, expected.permute(0, 2, 3, 1).numpy(), atol=0.1)


def test_a_map_that_moves_nothing_gives_the_plain_crop(frames: np.ndarray) -> None:
    """Same size: exactly. Smaller: filtered before it is sampled, so that stripes of one pixel become grey."""
    still = affine_map(degrees=0, shear_degrees=0, shift=(0, 0), scale=1, center=(32, 32))
    crop = Region(8, 4, 40, 40, flip=True)
    region, warp = warp_region(still, crop, size=40, height=64, width=64)
    np.testing.assert_allclose(
        _transformed(frames, Drawn(region, warp), size=40), _transformed(frames, Drawn(crop), size=40), atol=0.01
    )
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    region, warp = warp_region(still, Region(0, 0, 64, 64), size=16, height=64, width=64)
    assert np.ptp(_transformed(stripes, Drawn(region, warp), size=16)) < 32


def test_a_picture_that_is_moved_out_of_sight_leaves_its_border(frames: np.ndarray) -> None:
    away = affine_map(degrees=0, shear_degrees=0, shift=(500, 0), scale=1, center=(32, 32))
    region, warp = warp_region(away, Region(0, 0, 64, 64), size=64, height=64, width=64)
    ours = _transformed(frames, Drawn(region, warp))
    np.testing.assert_allclose(ours, np.repeat(frames[:, :, :1], 64, axis=2), atol=0.01)


def test_a_samples_generator_gives_what_a_new_one_would() -> None:
    """Whatever the thread's one was used for before."""
    for seed, epoch, sample, draw in [(0, 0, 0, 0), (7, 3, 5, 1), (2**63, 2**40, 100_000_000, 2)]:
        expected = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, draw, sample]))
        rng = sample_rng(seed=seed, epoch=epoch, sample=sample, draw=draw)
        for _ in range(3):  # half a word is left over by these
            assert rng.integers(0, 1000, dtype=np.int32) == expected.integers(0, 1000, dtype=np.int32)
        assert rng.random() == expected.random() and (rng.random(5) == expected.random(5)).all()


def test_all_that_is_drawn_depends_on_seed_epoch_and_sample_alone(motion_shards: Path) -> None:
    """The same clips in other batches, with other threads, from a resumed loader and from two ranks; others in the next epoch."""
    options = {"color_jitter": COLOR, "affine": AFFINE}

    def clips(loader: vidpipe.Loader) -> dict[str, torch.Tensor]:
        with loader:
            return {key: video for b in loader for key, video in zip(b.key, b.video, strict=True)}

    def loader(threads: int, **settings: object) -> vidpipe.Loader:
        chosen = vidpipe.LoaderOptions(threads=threads, **options)
        return vidpipe.Loader(motion_shards, size=32, augment="train", backend="torch", options=chosen, **settings)

    with loader(2, batch_size=32) as reference:
        first, second = next(iter(reference)), None
        reference.set_epoch(1)
        second = next(iter(reference))
    expected = dict(zip(first.key, first.video, strict=True))
    begun = loader(1, batch_size=5)
    seen = dict(zip(*((batch := next(iter(begun))).key, batch.video), strict=True))
    resumed = loader(3, batch_size=7)
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    begun.close()
    for clip in (
        seen | clips(resumed),
        clips(loader(1, rank=0, world_size=2)) | clips(loader(1, rank=1, world_size=2)),
    ):
        assert clip.keys() == expected.keys() and all(torch.equal(clip[key], expected[key]) for key in expected)
    assert not any(torch.equal(video, expected[key]) for key, video in zip(second.key, second.video, strict=True))


def test_a_share_of_the_clips_stays_as_it_is(motion_shards: Path) -> None:
    def clips(**options: object) -> torch.Tensor:
        chosen = vidpipe.LoaderOptions(**options)
        with vidpipe.Loader(
            motion_shards, batch_size=32, size=32, augment="train", backend="torch", options=chosen
        ) as loader:
            return next(iter(loader)).video

    plain = clips()
    for options in (
        {"color_jitter": ColorJitter(brightness=0.5, prob=0.5)},
        {"affine": Affine(rotation=20, prob=0.5)},
    ):
        same = [torch.equal(clip, other) for clip, other in zip(clips(**options), plain, strict=True)]
        assert 8 <= sum(same) <= 24


def test_clips_of_one_read_are_those_of_separate_draws(motion_shards: Path, backend: str) -> None:
    """Three clips of each sample stand together; the first is what a loader of one clip gives, the others differ from it."""

    def loader(clips: int, batch_size: int, **settings: object) -> vidpipe.Loader:
        options = vidpipe.LoaderOptions(clips_per_sample=clips, affine=AFFINE)
        settings = {"frames": 4, "size": 32, "augment": "train", "backend": backend, "options": options, **settings}
        return vidpipe.Loader(motion_shards, batch_size=batch_size, **settings)

    with loader(1, 32) as single:
        expected = {key: video for b in single for key, video in zip(b.key, b.video, strict=True)}
    with loader(3, 15) as several:
        assert several.num_samples == 32 and len(several) == 7
        batches = list(several)
    assert [len(batch) for batch in batches] == [15] * 6 + [6]
    keys = [key for batch in batches for key in batch.key]
    assert keys[::3] == keys[1::3] == keys[2::3] and sorted(keys[::3]) == sorted(expected)
    videos, views = torch.cat([batch.video for batch in batches]), torch.cat([batch.view for batch in batches])
    assert views.tolist() == [0, 1, 2] * 32
    for key, video, others in zip(keys[::3], videos[::3], videos.view(32, 3, *videos.shape[1:])[:, 1:], strict=True):
        torch.testing.assert_close(video, expected[key], atol=0, rtol=0)
        assert not torch.equal(others[0], video) and not torch.equal(others[0], others[1])


def test_clips_of_one_read_resume_exactly(motion_shards: Path) -> None:
    def loader(**settings: object) -> vidpipe.Loader:
        options = vidpipe.LoaderOptions(clips_per_sample=2)
        settings = {"frames": 4, "size": 32, "augment": "train", "backend": "torch", "options": options, **settings}
        return vidpipe.Loader(motion_shards, **settings)

    with loader(batch_size=6) as begun:
        iterator = iter(begun)
        next(iterator)
        state = begun.state_dict()
        following = next(iterator)
        iterator.close()
    with loader(batch_size=6) as resumed:
        resumed.load_state_dict(state)
        batch = next(iter(resumed))
    assert batch.key == following.key and torch.equal(batch.video, following.video)


def test_the_frames_of_all_clips_are_read_once(motion_shards: Path) -> None:
    """At most what is stored, however many windows of it are taken."""
    read = []
    for clips in (1, 8):
        options = vidpipe.LoaderOptions(clips_per_sample=clips, threads=1, prefetch_across_epochs=False)
        with vidpipe.Loader(
            motion_shards, batch_size=8, size=32, augment="train", backend="torch", options=options
        ) as loader:
            list(loader)
            read.append(loader.stats().bytes_read)
    assert read[0] == read[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_batches_of_other_types_are_the_rounded_ones(motion_shards: Path, backend: str, dtype: str) -> None:
    options = vidpipe.LoaderOptions(color_jitter=ColorJitter(contrast=0.3, prob=0.5))
    batches = []
    for wanted in ("float32", dtype):
        with vidpipe.Loader(
            motion_shards, batch_size=8, size=32, augment="train", backend=backend, dtype=wanted, options=options
        ) as loader:
            batches.append(next(iter(loader)).video)
    assert torch.equal(batches[0].to(getattr(torch, dtype)), batches[1])


def test_the_process_keeps_its_threads(motion_shards: Path) -> None:
    """Reading threads compute alone; whoever else does keeps the number of threads that was set."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with vidpipe.Loader(motion_shards, batch_size=8, size=32, augment="train", backend="torch") as loader:
            next(iter(loader))
            with ThreadPoolExecutor(1) as later:
                assert (torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == (3, 3)
            assert loader._workers.pool._executor.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


def test_values_that_make_no_sense_are_refused(motion_shards: Path) -> None:
    def refused(message: str, **settings: object) -> None:
        settings = {"augment": "train", "backend": "torch", "size": 32, **settings}
        with pytest.raises(UsageError, match=message) as caught:
            vidpipe.Loader(motion_shards, **settings)
        assert "\n" not in str(caught.value)

    refused(
        "clips_per_sample: got 3 with batches of 8", batch_size=8, options=vidpipe.LoaderOptions(clips_per_sample=3)
    )
    for name, value in (
        ("clips_per_sample", 2),
        ("color_jitter", COLOR),
        ("affine", AFFINE),
        ("crop_scale", (0.5, 1.0)),
        ("crop_ratio", (1.0, 1.0)),
        ("horizontal_flip", True),
    ):
        refused(f"{name}: got .* add augment='train'", augment=None, options=vidpipe.LoaderOptions(**{name: value}))
