"""Shards of codec mp4 hold whole videos: any window at any stride is cut while training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import RunCommand

from vidpipe import Loader
from vidpipe.errors import UsageError
from vidpipe.loader import LoaderOptions
from vidpipe.loader.sampling.window import frame_window
from vidpipe.video.spec import ClipSpec


@pytest.fixture(scope="module")
def whole(videos_dir: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]) -> Path:
    """The real clips, 128 pixels high; 16 frames at stride 4."""
    out = tmp_path_factory.mktemp("whole") / "mp4"
    source = ("--source", videos_dir, "--set", "annotations=labels.csv", "--max-rejects", "20%", "--split", "train")
    clips = ("--frames", 16, "--stride", 4, "--height", 128, "--clips", 1, "--seed", 3)
    assert session_command("prep", "csv", *source, *clips, "--codec", "mp4", "--set", "crf=12", "--out", out) == 0
    return out


def _clips(shards: Path, **arguments: object) -> dict[str, torch.Tensor]:
    with Loader(shards, batch_size=3, size=96, **arguments) as loader:
        return {path: clip for batch in loader for path, clip in zip(batch.video_path, batch.video, strict=True)}


def test_one_sample_a_video_with_all_its_frames(whole: Path, vidpipe: RunCommand) -> None:
    assert vidpipe("verify", whole, "--deep").code == 0
    with Loader(whole, size=32) as loader:
        assert loader.num_samples == 7 and loader.num_frames == 16
    description = json.loads(vidpipe("inspect", whole, "--json").out)["splits"]["train"]
    assert description["counts"]["clips"] == description["counts"]["written"] == 7
    assert description["sources"]["codecs"] == {"h264": 6, "mpeg4": 1}
    assert sum(description["sources"]["sizes"].values()) == 7
    assert "whole videos" in vidpipe("inspect", whole).out


def test_windows_are_those_of_clips_that_are_cut_in_prep(
    whole: Path, videos_dir: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    """The same frames, but for what H.264 loses: the central clip of prep is the central window here."""
    table = tmp_path / "val.csv"  # clips are jittered in train only
    table.write_text((videos_dir / "labels.csv").read_text().replace(",train", ",val"))
    result = vidpipe(
        *("prep", "csv", "--source", videos_dir, "--set", f"annotations={table}", "--max-rejects", "20%"),
        *("--frames", 8, "--stride", 5, "--height", 128, "--clips", 1, "--out", tmp_path / "cut"),
    )
    assert result.code == 0, result.err
    cut = _clips(tmp_path / "cut", split="val")
    here = _clips(whole, frames=8, stride=5)
    elsewhere = _clips(whole, frames=8, stride=5, options=LoaderOptions(window=0))
    assert len(here) == 7
    for path, clip in here.items():
        assert (clip - cut[path]).abs().mean() < 0.12, path
        moves = path != "ntu_1080p.avi"  # a person who stands before a wall
        assert not moves or (elsewhere[path] - cut[path]).abs().mean() > 0.2, path


def test_a_window_that_is_longer_than_the_video_repeats_its_last_frame(whole: Path) -> None:
    clips = _clips(whole, frames=32, stride=8)
    short = clips["ntu_1080p.avi"]  # 103 frames: 13 at stride 8
    assert torch.equal(short[:, 12:13].expand(-1, 20, -1, -1), short[:, 12:])
    assert not torch.equal(short[:, 11], short[:, 12])


def test_training_takes_another_window_in_each_epoch_and_the_same_after_a_resume(whole: Path) -> None:
    with Loader(whole, batch_size=2, size=48, augment="train", seed=5) as loader:
        first = [batch.video for batch in loader]
        second = [batch.video for batch in loader]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with Loader(whole, batch_size=2, size=48, augment="train", seed=5) as loader:
        loader.set_epoch(1)
        assert all(torch.equal(a, b) for a, b in zip((batch.video for batch in loader), second, strict=True))


@pytest.mark.parametrize("stored", [5, 16, 61, 62, 300])
def test_windows_stay_within_the_video(stored: int) -> None:
    clip = ClipSpec(frames=16, stride=4)
    window = frame_window(clip, whole_videos=True, frames=None, stride=None, window="random")
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(4000):
        frames = window.pick(rng, stored)
        assert len(frames) == 16 and min(frames) >= 0 and max(frames) < stored and frames == sorted(frames)
        starts.add(frames[0])
    assert starts == set(range(max(1, stored - 60)))
    evenly = frame_window(
        ClipSpec(frames=16, sampling="uniform"), whole_videos=True, frames=8, stride=None, window="center"
    )
    expected = [int((i + 0.5) * stored / 8) for i in range(8)]
    assert evenly.pick(rng, stored) == expected


@pytest.mark.parametrize(("arguments", "words"), [({"frames": 0}, "at least 1"), ({"stride": 0}, "at least 1")])
def test_impossible_windows_are_refused(whole: Path, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Loader(whole, **arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--codec", "mp4", "--set", "decoder=decord"), "encoded by ffmpeg"),
        (("--codec", "jpeg", "--dtype", "float16"), "goes with codec: tensor"),
        (("--codec", "tensor", "--set", "crf=20"), "crf goes with codec: mp4"),
        (("--codec", "mp4", "--quality", "90"), "quality goes with codec: jpeg"),
    ],
)
def test_options_of_another_codec_are_refused(
    videos_dir: Path, tmp_path: Path, vidpipe: RunCommand, options: tuple[str, ...], words: str
) -> None:
    result = vidpipe("prep", "folder", "--source", videos_dir, "--out", tmp_path / "out", *options)
    assert result.code == 2 and words in result.err and not (tmp_path / "out").exists()
