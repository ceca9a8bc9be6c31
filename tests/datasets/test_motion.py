from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from vidpipe.datasets.motion import Motion, generate
from vidpipe.datasets.sprites import MOTIONS, draw_track, draw_video
from vidpipe.errors import DatasetError

SMALL = Motion(train_videos=1, val_videos=1, video_frames=6)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion") / "videos"
    generate(folder, SMALL)
    return folder


def test_the_generated_videos_are_listed_by_class_and_split(videos: Path) -> None:
    listing = SMALL.scan(videos)
    assert listing.classes == tuple(sorted(MOTIONS))
    assert [(video.split, video.label) for video in listing.videos] == [
        (split, motion) for split in ("train", "val") for motion in sorted(MOTIONS)
    ]
    assert not any(listing.counts.values())
    assert not listing.notes
    kinds = SMALL.model_copy(update={"labels": "kind"}).scan(videos)
    assert kinds.classes == ("scale", "turn", "x", "y")
    assert [video.path for video in kinds.videos] == [video.path for video in listing.videos]
    for coarse, fine in zip(kinds.videos, listing.videos, strict=True):
        assert fine.label is not None and coarse.label == MOTIONS[fine.label][0]


def test_they_decode_to_what_was_drawn(videos: Path) -> None:
    import decord

    decoded = decord.VideoReader(str(videos / "train/left/0000.mp4"), num_threads=1)[:].asnumpy().astype(float)
    assert decoded.shape == (6, 64, 72, 3)
    still, moving = np.abs(np.diff(decoded, axis=0)).mean(axis=(0, 3)), decoded.std(axis=(0, 1, 2))
    assert np.median(still) < 12
    assert still.max() > 40
    assert (moving > 20).all()


def test_a_second_run_adds_what_lacks_and_is_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(videos, again)
    before = (again / "val/up/0000.mp4").stat().st_mtime_ns
    (again / "train/grow/0000.mp4").rename(again / "train/grow/0001.mp4")  # of a larger number of them
    (again / "train/up/0001.mp4.tmp").touch()
    calls: list[tuple[int, int]] = []
    generate(again, SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(15, 16), (16, 16)]
    names = sorted(path.relative_to(videos) for path in videos.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((videos / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (again / "val/up/0000.mp4").stat().st_mtime_ns == before
    generate(again, SMALL.model_copy(update={"video_seed": 1, "val_videos": 0}))
    assert (videos / names[1]).read_bytes() != (again / names[1]).read_bytes()


def test_several_that_generate_at_once_share_the_videos(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(generate, folder, SMALL) for _ in range(3)]:
            made.result()
    names = sorted(path.relative_to(videos) for path in videos.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert all((videos / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_scenery_drifts_behind_the_sprite_and_is_harder_to_compress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import decord

    monkeypatch.setattr("vidpipe.datasets.motion.MOTIONS", {"left": MOTIONS["left"]})
    size = {"train_videos": 1, "val_videos": 0, "video_frames": 24, "video_size": (160, 120)}
    seen = {}
    for scenery in (False, True):
        generate(tmp_path / str(scenery), Motion(scenery=scenery, **size))
        path = tmp_path / str(scenery) / "train/left/0000.mp4"
        video = decord.VideoReader(str(path), num_threads=1)[:].asnumpy().astype(float)
        seen[scenery] = path.stat().st_size, np.median(np.abs(video[23] - video[0]))
    (plain_bytes, plain_change), (bytes_of_it, change) = seen[False], seen[True]
    assert bytes_of_it > 1.2 * plain_bytes and change > 1.5 * plain_change


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").touch()
    with pytest.raises(DatasetError, match="holds other files"):
        generate(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]
    with pytest.raises(DatasetError, match="can't be written"):
        generate(tmp_path / "mine.mp4" / "videos", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no generated videos"):
        SMALL.scan(tmp_path / "empty")


def test_options_are_checked() -> None:
    assert Motion.model_validate({"video_size": "96x72"}).video_size == (96, 72)
    for size in ("95x72", "big", (16, 64)):
        with pytest.raises(ValidationError, match="expected"):
            Motion.model_validate({"video_size": size})


def test_one_frame_tells_nothing() -> None:
    """The state of any one frame has the same distribution in all classes: uniform on each of its four cycles."""
    rng = np.random.default_rng(0)
    for motion in MOTIONS:
        tracks = [draw_track(motion, frames=9, width=72, height=64, rng=rng) for _ in range(2000)]
        for frame in (0, 8):
            places = {
                "x": np.array([track.x[frame] for track in tracks]) / 72,
                "y": np.array([track.y[frame] for track in tracks]) / 64,
                "angle": np.mod([track.angle[frame] / (2 * np.pi) for track in tracks], 1),
                "scale": np.log([track.scale[frame] / 0.6 for track in tracks]) / np.log(1.4 / 0.6),
            }
            for name, values in places.items():
                gap = np.abs(np.sort(values) - (np.arange(2000) + 0.5) / 2000).max()
                assert gap < 1.95 / np.sqrt(2000), (motion, name)  # Kolmogorov-Smirnov, p < 0.001 for each


@pytest.mark.parametrize(("motion", "opposite"), [("left", "right"), ("up", "down"), ("grow", "shrink")])
def test_opposites_are_each_other_played_backwards(motion: str, opposite: str) -> None:
    one = draw_track(motion, frames=5, width=72, height=64, rng=np.random.default_rng(3))
    other = draw_track(opposite, frames=5, width=72, height=64, rng=np.random.default_rng(3))
    for name, period in (("x", 72), ("y", 64)):
        forward, backward = np.diff(getattr(one, name)), np.diff(getattr(other, name))
        np.testing.assert_allclose(np.mod(forward + backward + 1, period), 1, atol=1e-9)
    assert np.sign(np.median(np.diff(one.scale))) == -np.sign(np.median(np.diff(other.scale)))


def test_directions_are_what_their_names_say() -> None:
    """Seen on the drawn frames: x grows to the right, y downwards, and angles clockwise."""

    def light_centre(motion: str) -> np.ndarray:
        track = draw_track(motion, frames=2, width=256, height=256, rng=np.random.default_rng(5))
        video = draw_video(track, width=256, height=256, rng=np.random.default_rng(6))
        moved = video.astype(float).sum(axis=3) - np.median(video.astype(float).sum(axis=3))
        rows, columns = np.mgrid[:256, :256]
        near = np.hypot(columns - track.x[0], rows - track.y[0]) < 80
        light = np.where(near, np.clip(moved, 150, None) - 150, 0)
        return np.array([[(light[t] * axis).sum() / light[t].sum() for axis in (columns, rows)] for t in (0, 1)])

    for motion, axis, sign in (("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)):
        assert sign * np.diff(light_centre(motion), axis=0)[0, axis] > 4, motion
    for motion, sign in (("clockwise", 1), ("anticlockwise", -1)):
        track = draw_track(motion, frames=2, width=256, height=256, rng=np.random.default_rng(5))
        first, second = light_centre(motion) - np.array([track.x[0], track.y[0]])
        assert sign * (first[0] * second[1] - first[1] * second[0]) > 0, motion
