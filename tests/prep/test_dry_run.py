"""`vidpipe prep --dry-run`: it counts what prep will find, and its estimates are near what prep then writes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import RunCommand
from generated_video import write_video

from vidpipe.prep import header_sample
from vidpipe.prep.estimate import estimate
from vidpipe.prep.header_sample import SAMPLE_VIDEOS, sample_headers
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import load_manifest
from vidpipe.video.header import Header, read_header

FAULTY_AV = Path(__file__).parent / "faulty_av"


@pytest.fixture(autouse=True)
def no_machine_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_sample, "SECONDS_A_HEADER", 600.0)
    monkeypatch.setattr(header_sample, "SECONDS_ALTOGETHER", 6000.0)


@pytest.fixture
def dry(vidpipe: RunCommand) -> Callable[..., dict[str, Any]]:
    """The JSON of a dry run that succeeds."""

    def run(*arguments: object) -> dict[str, Any]:
        result = vidpipe("prep", *arguments, "--dry-run", "--json")
        assert result.code == 0, result.err
        content: dict[str, Any] = json.loads(result.out)
        return content

    return run


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """25 frames of 96x64."""
    return write_video(
        tmp_path_factory.mktemp("video") / "x.mp4", "testsrc2=size=96x64:rate=25:duration=1"
    ).read_bytes()


def test_it_says_what_was_found_and_what_prep_then_writes(
    tmp_path: Path, video: bytes, dry: Callable[..., dict[str, Any]], vidpipe: RunCommand
) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    for name in "abcdefg":
        (source / f"{name}.mp4").write_bytes(video)
    (source / "text.mp4").write_text("no video")
    (source / "extra.mp4").write_bytes(video)
    (source / "notes.txt").touch()
    rows = ["a,run,train", "b,run,train", "c,walk,train", "gone,run,train", "text,walk,train", "d,run,val", "e,,test"]
    lines = ["path,label,split", *(row.replace(",", ".mp4,", 1) for row in [*rows, "a,run,train", "f,,train"])]
    (source / "labels.csv").write_bytes("\r\n".join(lines).encode())
    command = ("csv", "--source", source, "--out", out, "--frames", 6, "--height", 64, "--shard-size-mb", 0.1)
    found = dry(*command)
    assert not out.exists()
    splits = found["splits"]
    assert list(splits) == ["train", "val", "test"]
    assert (splits["train"]["videos"], splits["train"]["missing"], splits["train"]["clips"]) == (4, 1, 4)
    assert splits["train"]["classes"] == {"run": 2, "walk": 2}
    assert (splits["val"]["videos"], splits["val"]["clips"]) == (1, 4), "val has four clips a video"
    assert (splits["test"]["unlabelled"], splits["test"]["classes"]) == (1, {})
    known = {"missing": 1, "duplicates": 1, "extra_videos": 3, "other_files": 1, "bad_rows": 1, "crlf_lines": 9}
    assert found["counts"] == known
    assert found["basis"] == {
        **{"headers": 5, "unreadable": 1, "undecided": 0, "sizes": [[96, 64], [96, 64]], "median_seconds": 1.0}
    }
    text = vidpipe("prep", *command, "--dry-run").out
    for part in (
        "train: 4 videos of 2 classes, 1 missing; 4 clips, ",
        "test: 1 videos of 0 classes, 0 missing, 1 without a label",
        "  bad rows: 1",
        "note: 1 rows can't be read and are left out, the first is labels.csv line 10",
        "from the headers of 5 of 6 videos: 96x64, half of them 1.0 s or longer; 1 more can't be read",
        "fits",
    ):
        assert part in text

    written = vidpipe("prep", *command, "--max-rejects", "40%", "--json")
    assert written.code == 0, written.err
    for name, split in json.loads(written.out)["splits"].items():
        payload = sum(sum(sizes) for sizes in read_samples(out / name, ["payload_sizes"])["payload_sizes"].to_pylist())
        assert splits[name]["payload_bytes"] == payload, "the sizes are known, so tensors are exact"
        assert splits[name]["shards"] == split["shards"]
        assert splits[name]["bytes"] == pytest.approx(split["bytes"], rel=0.05)
    assert dry(*command)["bytes_left"] == 0


@pytest.mark.parametrize("options", [("--codec", "jpeg"), ("--codec", "mp4", "--fps", 10)])
def test_compressed_bytes_are_within_a_half(
    videos_dir: Path,
    tmp_path: Path,
    dry: Callable[..., dict[str, Any]],
    vidpipe: RunCommand,
    options: tuple[object, ...],
) -> None:
    rows = ("kinetics_9r8wpMS2iEk_000048_000058.mp4", "xvid.avi")
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{name},a\n" for name in rows))
    annotations = ("--set", f"annotations={tmp_path / 'labels.csv'}")
    command = ("csv", "--source", videos_dir, "--out", tmp_path / "out", *annotations, "--height", 120, *options)
    expected = dry(*command)["bytes"]
    assert vidpipe("prep", *command).code == 0
    written = sum(shard.bytes for shard in load_manifest(tmp_path / "out/train").shards)
    assert written / 1.5 < expected < written * 1.5


def test_real_clips_of_many_sizes(
    real_shards: Path, videos_dir: Path, tmp_path: Path, dry: Callable[..., dict[str, Any]]
) -> None:
    options = ("--frames", 16, "--stride", 2, "--clips", 1, "--shard-size-mb", 8)
    val = dry("csv", "--source", videos_dir, "--out", tmp_path, *options)["splits"]["val"]
    payload = sum(size for (size,) in read_samples(real_shards / "val", ["payload_sizes"])["payload_sizes"].to_pylist())
    written = sum(shard.bytes for shard in load_manifest(real_shards / "val").shards)
    assert val["payload_bytes"] == payload and val["bytes"] == pytest.approx(written, rel=0.001)


def test_finished_shards_are_not_made_again_so_they_take_no_further_room(
    motion_shards: Path,
    tmp_path: Path,
    dry: Callable[..., dict[str, Any]],
    vidpipe: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = ("--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", 2)
    command = ("motion", "--source", motion_shards / "videos", "--out", tmp_path / "out", *counts)
    before = dry(*command)
    assert before["fits"] and before["bytes_left"] == before["bytes"]
    assert dry(*command, "--task", "1/2")["seconds"] < before["seconds"]
    assert vidpipe("prep", *command, "--task", "1/2").code == 0
    after = dry(*command)
    finished = {name: split["finished_shards"] for name, split in after["splits"].items()}
    made = sum(path.stat().st_size for path in (tmp_path / "out").glob("*/*.tar"))
    assert sum(finished.values()) == len(list((tmp_path / "out").glob("*/*.tar"))) > 0
    assert after["bytes"] == before["bytes"]
    assert after["bytes_left"] == pytest.approx(before["bytes"] - made, rel=0.05)
    assert after["seconds"] < before["seconds"]

    room = SimpleNamespace(free=after["bytes_left"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    assert dry(*command)["fits"]
    room.free -= 1
    assert not dry(*command)["fits"]
    text = vidpipe("prep", *command, "--dry-run").out
    assert "does NOT fit" in text and f"({sum(finished.values())} are finished)" in text

    other = vidpipe("prep", "motion", "--out", motion_shards, *counts, "--frames", 3, "--dry-run")
    assert other.code == 1 and "made from other videos or other options" in other.err


def test_a_header_that_hangs_or_is_damaged_stops_nothing(
    tmp_path: Path,
    video: bytes,
    dry: Callable[..., dict[str, Any]],
    vidpipe: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAULTY_AV), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "videos/a").mkdir(parents=True)
    command = ("folder", "--source", tmp_path / "videos", "--out", tmp_path / "out")
    for name, content in {"empty": b"", "cut": video[:200], "zeros": bytes(5000)}.items():
        (tmp_path / f"videos/a/{name}.mp4").write_bytes(content)
    basis = dry(*command)["basis"]
    assert (basis["headers"], basis["unreadable"], basis["undecided"]) == (0, 3, 0)
    monkeypatch.setattr(header_sample, "SECONDS_A_HEADER", 1.0)
    for path in (tmp_path / "videos/a").iterdir():
        path.unlink()
    (tmp_path / "videos/a/hangs.mp4").write_bytes(video)
    text = vidpipe("prep", *command, "--dry-run").out
    assert "estimated for videos of 320x240 and 10 s, because no header could be read; 1 more took too long, or" in text


def test_large_splits_are_sampled_evenly(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(video)
    paths = [f"{number}.mp4" for number in range(1000)]
    for path in paths:
        (tmp_path / path).symlink_to("x.mp4")
    sample = sample_headers(tmp_path, {"train": paths, "val": paths[:10]})
    asked = sorted(int(Path(path).stem) for path in sample.headers)
    assert SAMPLE_VIDEOS <= len(asked) <= SAMPLE_VIDEOS + 4 and not sample.undecided
    assert asked[-1] > 950 and max(b - a for a, b in pairwise(asked)) < 20


def test_time_goes_by_codec_by_pixels_and_for_whole_videos_by_their_length() -> None:
    header = Header(640, 360, 30.0, 10.0, 300)
    cost: dict[str, float] = {}
    for codec in ("tensor", "jpeg", "mp4"):
        recipe = PrepRecipe(dataset="folder", codec=codec, frames=32, stride=2)
        clip = recipe.clip_spec("val")
        cost[codec] = estimate(header, recipe, clip).seconds
        large = estimate(replace(header, width=1280, height=720), recipe, clip)
        assert large.seconds > 1.3 * cost[codec]
        long = estimate(replace(header, num_frames=3000, duration_seconds=100.0), recipe, clip)
        assert (long.seconds > 9 * cost[codec]) == (codec == "mp4")
        assert (long.bytes > 9 * estimate(header, recipe, clip).bytes) == (codec == "mp4")
    assert max(cost["tensor"], cost["jpeg"]) < cost["mp4"] / 3


@pytest.mark.parametrize("name", ["x.mkv", "x.ts", "x.avi"])
def test_headers_of_other_containers(tmp_path: Path, name: str) -> None:
    header = read_header(write_video(tmp_path / name, "testsrc2=size=96x64:rate=25:duration=2", "-c:v", "mpeg4"))
    assert (header.width, header.height) == (96, 64)
    assert header.num_frames == pytest.approx(50, abs=2) and header.duration_seconds == pytest.approx(2, abs=0.1)
