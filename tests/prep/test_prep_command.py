"""`vidpipe prep` on real clips and on bad input, as a user sees it."""

from __future__ import annotations

import errno
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import RunCommand
from file_tree import contents
from generated_video import H264, write_video

from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.prep.parts import ShardPart, save_part
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import load_manifest


def test_rotated_is_upright_av1_is_decoded_and_short_is_padded(real_shards: Path) -> None:
    folder = real_shards / "val"
    rows = {row["video"]: row for row in read_samples(folder).to_pylist()}
    assert (rows["rotated_90.mov"]["height"], rows["rotated_90.mov"]["width"]) == (426, 240)
    assert rows["rotated_90.mov"]["padded_frames"] > 0 and rows["unordered_pts.mov"]["padded_frames"] > 0
    assert rows["av1.mkv"]["padded_frames"] == 0
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    sample = index.video.take(range(len(index))).index("av1.mkv")
    video = ClipReader(folder, manifest, index).read(
        sample, range(16), np.empty(16 * index.frame_bytes(sample), np.uint8)
    )
    assert video.std() > 10 and np.abs(np.diff(video.astype(int), axis=0)).max() > 0


@pytest.mark.parametrize("codec", ["tensor", "mp4"])
def test_the_statistics_are_those_of_the_stored_frames(
    real_shards: Path, motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, codec: str
) -> None:
    """Of every eighth frame, and every fourth pixel of its rows and columns."""
    folder = real_shards / "train"
    if codec == "mp4":
        videos, folder = motion_shards / "videos/val", tmp_path / "out/train"
        command = ("prep", "folder", "--source", videos, "--out", tmp_path / "out", "--codec", codec, "--height", 64)
        assert vidpipe(*command, "--limit", 4).code == 0
    manifest = load_manifest(folder)
    index = load_index(folder, manifest)
    reader, pixels = ClipReader(folder, manifest, index), []
    for sample, frames in enumerate(index.shape[:, 0].tolist()):
        clip = reader.read(sample, range(frames), np.empty(frames * index.frame_bytes(sample), np.uint8))
        pixels.append(clip[::8, ::4, ::4].reshape(-1, 3) / 255)
    every = np.concatenate(pixels)
    assert manifest.measured is not None
    np.testing.assert_allclose(manifest.measured.mean, every.mean(0), rtol=0, atol=6e-7)  # six digits
    np.testing.assert_allclose(manifest.measured.std, every.std(0), rtol=0, atol=6e-7)


@pytest.mark.parametrize(
    ("inherited", "options", "sampling"),
    [
        ("stride: 2", ("--fps", 10), ("fps", 10.0, 1)),
        ("sampling: uniform", ("--fps", 10), ("fps", 10.0, 1)),
        ("stride: 2", ("--set", "sampling=uniform"), ("uniform", None, 1)),
        ("fps: 12.5", ("--set", "sampling=uniform"), ("uniform", None, 1)),
        ("fps: 12.5", ("--stride", 3), ("stride", None, 3)),
        ("sampling: uniform", ("--stride", 3), ("stride", None, 3)),
    ],
)
def test_what_is_asked_for_displaces_the_recipes_way_of_sampling(
    tmp_path: Path,
    vidpipe: RunCommand,
    inherited: str,
    options: tuple[object, ...],
    sampling: tuple[str, float | None, int],
) -> None:
    """On a video of 25 frames/s for 0.8 s, and a third of that afterwards."""
    slow_end = "testsrc2=size=64x48:rate=25:duration=1.6,setpts=if(lt(N\\,20)\\,N\\,20+(N-20)*3)/25/TB"
    (tmp_path / "videos/a").mkdir(parents=True)
    write_video(tmp_path / "videos/a/x.mkv", slow_end, *H264, "-fps_mode", "passthrough")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"extends: folder\n{inherited}\nframes: 8\nheight: 48\nclips: 1\n")
    command = ("prep", recipe, "--source", tmp_path / "videos", "--out", tmp_path / "out", *options)
    result = vidpipe(*command)
    assert result.code == 0, result.err
    clip = load_manifest(tmp_path / "out/train").clip
    assert (clip.sampling, clip.fps, clip.stride) == sampling
    with tarfile.open(tmp_path / "out/train/00000.tar") as tar:
        sample = json.load(tar.extractfile("000000000-000.json"))  # type: ignore[arg-type]
    times = np.where(np.arange(40) < 20, np.arange(40), 20 + (np.arange(40) - 20) * 3) / 25
    indices = np.array(sample["frame_indices"])
    np.testing.assert_allclose(sample["times_seconds"], times[indices], atol=2e-3)
    if sampling[0] == "stride":
        assert np.diff(indices).tolist() == [3] * 7
    elif sampling[0] == "uniform":
        assert np.diff(indices).tolist() == [5] * 7
    else:
        wanted = times[indices[0]] + np.arange(8) / 10
        assert indices.tolist() == [int(np.flatnonzero(times <= time + 2e-3)[-1]) for time in wanted]


def test_workers_do_not_change_a_byte(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    counts = ("--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", 2)
    for workers in (1, 4):
        command = ("prep", "motion", "--source", motion_shards / "videos", "--out", tmp_path / str(workers), *counts)
        assert vidpipe(*command, "--workers", workers).code == 0
    assert len(list((tmp_path / "1" / "train").glob("*.tar"))) > 1
    for split in ("train", "val"):
        assert contents(tmp_path / "1" / split) == contents(tmp_path / "4" / split) == contents(motion_shards / split)


def test_slices_of_a_job_array_give_the_same_bytes(motion_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    counts = ("--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", 2)
    command = ("prep", "motion", "--source", motion_shards / "videos", "--out", tmp_path / "out", *counts, "--json")
    first = vidpipe(*command, "--task", "1/2")
    assert first.code == 0 and not list(tmp_path.glob("out/*/manifest.json"))
    report = json.loads(first.out)
    assert report["made_shards"] > 0 and report["unfinished_shards"] > 0
    last = vidpipe(*command, "--task", "2/2")
    assert last.code == 0 and json.loads(last.out)["unfinished_shards"] == 0
    for split in ("train", "val"):
        assert contents(tmp_path / "out" / split) == contents(motion_shards / split)
    assert vidpipe(*command, "--task", "3/2").code == 2


def test_a_shard_that_cant_be_written_costs_no_other(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not the one that is decoded while it goes to the disk."""
    failing = ["00000.tar"]

    def save(out: Path, part: ShardPart, rows: Iterable[dict[str, Any]]) -> None:
        if part.name in failing:
            failing.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_part(out, part, rows)

    monkeypatch.setattr("vidpipe.prep.shard_job.save_part", save)
    counts = ("--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", 2, "--split", "train")
    command = ("prep", "motion", "--source", motion_shards / "videos", "--out", tmp_path / "out", *counts)
    failed = vidpipe(*command, "--workers", 1)
    assert failed.code == 1 and "00000.tar: can't be written: No space left on device" in failed.err
    out = tmp_path / "out/train"
    assert [path.name for path in out.glob(".parts/*.json")] == ["00001.tar.json"] and not list(out.rglob("*.tmp"))
    assert vidpipe(*command).code == 0 and contents(out) == contents(motion_shards / "train")


def test_a_finished_data_set_is_left_alone(motion_shards: Path, vidpipe: RunCommand) -> None:
    before = contents(motion_shards)
    command = (
        "prep",
        "motion",
        "--out",
        motion_shards,
        "--set",
        "train_videos=4",
        "--set",
        "val_videos=2",
        "--shard-size-mb",
        2,
    )
    again = vidpipe(*command, "--json")
    assert again.code == 0 and json.loads(again.out)["made_shards"] == 0
    other = vidpipe(*command, "--frames", 3)
    assert other.code == 1 and "made from other videos or other options (frames was 16, is 3); choose" in other.err
    assert contents(motion_shards) == before


def test_a_finished_data_set_on_a_read_only_file_system_counts_as_done(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    videos = motion_shards / "videos" / "val"
    command = ("prep", "folder", "--source", videos, "--out", tmp_path, "--frames", 2, "--crop", "32x32")
    assert vidpipe(*command).code == 0
    before = contents(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr("vidpipe.shards.locks._make_folder", refuse)
    again = vidpipe(*command, "--json")
    report = json.loads(again.out)
    assert again.code == 0 and report["made_shards"] == 0 and report["splits"]["train"]["written"] == 16
    other = vidpipe(*command, "--set", "horizontal_flip=false")
    assert other.code == 1 and "can't be used: Read-only file system" in other.err
    (tmp_path / "train" / "manifest.json").unlink()  # not finished after all
    refused = vidpipe(*command)
    assert refused.code == 1 and "can't be used: Read-only file system" in refused.err
    assert {**contents(tmp_path), "train/manifest.json": before["train/manifest.json"]} == before


def _empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _unlabelled(path: Path) -> Path:
    (path / "a").mkdir(parents=True)
    (path / "a" / "x.mp4").touch()
    (path / "names.txt").write_text("bees\n")
    return path


BAD_INPUT: list[tuple[str, Callable[[Path], list[object]], int, str]] = [
    ("missing folder", lambda p: ["folder", "--source", p / "absent"], 1, "absent"),
    ("empty folder", lambda p: ["folder", "--source", _empty_folder(p / "empty")], 1, "no video"),
    ("no source", lambda p: ["folder"], 2, "--source"),
    ("unknown recipe", lambda p: ["foldr", "--source", p], 2, "did you mean folder"),
    ("unknown key", lambda p: ["folder", "--source", p, "--set", "frmes=3"], 2, "did you mean frames"),
    ("wrong value", lambda p: ["folder", "--source", p, "--frames", 0], 2, "frames"),
    (
        "odd height",
        lambda p: ["folder", "--source", p, "--height", 241],
        2,
        "height: got 241: Input should be a multiple",
    ),
    ("too many frames", lambda p: ["folder", "--source", p, "--frames", 5000], 2, "frames: got 5000"),
    ("no clips", lambda p: ["folder", "--source", p, "--clips", 0], 2, "clips: got 0: expected 1 to 4096"),
    ("odd crop", lambda p: ["folder", "--source", p, "--crop", "33x47"], 2, "crop: got 33"),
    (
        "a split without clips",
        lambda p: ["folder", "--source", p, "--set", "clips={val: 0}"],
        2,
        "clips: got {'val': 0}",
    ),
    (
        "clips of a split that isn't there",
        lambda p: ["folder", "--source", _unlabelled(p / "v"), "--set", "clips={trian: 3}"],
        2,
        "clips.trian: no such split; did you mean train?",
    ),
    ("endless rate", lambda p: ["folder", "--source", p, "--fps", "inf"], 2, "fps: got 'Infinity'"),
    ("endless shards", lambda p: ["folder", "--source", p, "--shard-size-mb", "inf"], 2, "shard_size_mb"),
    ("no time", lambda p: ["folder", "--source", p, "--timeout", 0], 2, "timeout_seconds: got 0"),
    ("budget above all", lambda p: ["folder", "--source", p, "--max-rejects", "200%"], 2, "max_rejects: got 2.0"),
    ("budget in words", lambda p: ["folder", "--source", p, "--max-rejects", "few%"], 2, "max_rejects: got 'few%'"),
    ("quality of nothing", lambda p: ["folder", "--source", p, "--quality", 0, "--codec", "jpeg"], 2, "quality: got 0"),
    ("division by zero", lambda p: ["folder", "--source", p, "--set", "normalize.std=[0, 1, 1]"], 2, "normalize.std"),
    ("a slice before the first", lambda p: ["folder", "--source", p, "--task", "0/3"], 2, "--task 0/3"),
    ("stride and fps", lambda p: ["folder", "--source", p, "--stride", 2, "--fps", 5], 2, "stride goes with"),
    (
        "stride and evenly",
        lambda p: ["ssv2", "--source", p, "--stride", 2, "--set", "sampling=uniform"],
        2,
        "stride goes",
    ),
    ("a rate without one", lambda p: ["folder", "--source", p, "--set", "sampling=fps"], 2, "needs `fps"),
    ("sampling of no kind", lambda p: ["folder", "--source", p, "--set", "sampling=[fps]"], 2, "sampling: got ['fps']"),
    ("unknown codec", lambda p: ["folder", "--source", p, "--codec", "gif"], 2, "tensor"),
    (
        "label not in list",
        lambda p: ["folder", "--source", _unlabelled(p / "v"), "--set", "classes=names.txt"],
        1,
        "'a'",
    ),
    ("no annotations", lambda p: ["csv", "--source", p, "--set", "annotations=absent.csv"], 1, "absent.csv"),
    ("not a recipe", lambda p: ["folder", "--source", p, "--set", "frames"], 2, "key=value"),
    ("unknown option", lambda p: ["folder", "--sauce", p], 2, "--sauce"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "text"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT]
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, vidpipe: RunCommand, arguments: Callable[[Path], list[object]], code: int, text: str
) -> None:
    result = vidpipe("prep", *arguments(tmp_path), "--out", tmp_path / "out")
    assert result.code == code and text in result.err and "Traceback" not in result.err
    assert len([line for line in result.err.splitlines() if line.startswith("error:") or "Error" in line]) == 1
    assert not list(tmp_path.glob("out/*/*"))


def test_a_decoder_that_cant_start_is_no_videos_fault(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "decord.py").write_text("raise SystemExit('no decord here')\n")
    (tmp_path / "broken" / "numpy.py").write_text("raise SystemExit('no numpy here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    result = vidpipe("prep", "folder", "--source", motion_shards / "videos", "--out", tmp_path / "out", "--frames", 4)
    assert result.code == 1 and "the decoding process can't start (exit code 1)" in result.err
    assert not list(tmp_path.glob("out/*/*.tar")) and not list(tmp_path.glob("out/*/rejects.jsonl"))
