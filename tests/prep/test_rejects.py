"""What becomes of videos that can't be used: rejects, the budget for them, and another try once they are mended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import RunCommand
from file_tree import contents

from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.run import is_within_budget
from vidpipe.shards.index import read_samples
from vidpipe.shards.layout import PARTS_FOLDER
from vidpipe.shards.manifest import load_manifest
from vidpipe.video.ffmpeg import run_ffmpeg

Prep = Callable[..., Any]


def test_a_damaged_video_is_a_reject_and_the_budget_decides(
    videos_dir: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    command = (
        "prep",
        "csv",
        "--source",
        videos_dir,
        "--set",
        "annotations=labels.csv",
        "--out",
        tmp_path / "x",
        "--frames",
        8,
    )
    refused = vidpipe(*command, "--json")
    assert refused.code == 3
    assert (
        "corrupted.mp4" in refused.err
        and "1 of 11 videos rejected (9.1%), but --max-rejects allows 1.0%" in refused.err
    )
    told = json.loads(refused.out)
    assert told["over_budget"] and told["splits"]["val"]["rejected"] == 0
    train = told["splits"]["train"]
    assert (train["videos"], train["written"], train["rejects_by_reason"]) == (8, 7, {"damaged": 1})
    assert not list((tmp_path / "x").glob("*/manifest.json"))
    asked = vidpipe("inspect", tmp_path / "x" / "train")
    assert asked.code == 1 and "rejects.jsonl" in asked.err and "larger --max-rejects" in asked.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").glob("*/*.tar")}
    assert len(before) == 2

    accepted = vidpipe(*command, "--max-rejects", "20%", "--json")
    assert accepted.code == 0
    report = json.loads(accepted.out)
    assert not report["over_budget"]
    assert report["reused_shards"] == 2 and report["made_shards"] == 0, "finished shards are not made again"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    train, val = report["splits"]["train"], report["splits"]["val"]
    assert (train["videos"], train["written"], train["rejected"]) == (8, 7, 1)
    assert (val["videos"], val["written"], val["rejected"]) == (3, 3, 0)
    (reject,) = [json.loads(line) for line in (tmp_path / "x/train/rejects.jsonl").read_text().splitlines()]
    assert reject["path"] == "corrupted.mp4" and reject["stage"] == "decode" and reject["reason"] == "damaged"
    assert str(videos_dir) not in reject["message"]
    assert not list((tmp_path / "x").rglob(".parts"))


@pytest.mark.parametrize("codec", ["jpeg", "mp4"])
def test_a_sound_video_that_the_codec_cannot_hold_is_not_called_damaged(
    codec: str, tmp_path: Path, vidpipe: RunCommand
) -> None:
    (tmp_path / "v/a").mkdir(parents=True)
    for name, size in (("wide", "9000x2"), ("usual", "32x32")):
        picture = ["-f", "lavfi", "-i", f"testsrc2=size={size}:duration=0.1", "-c:v", "ffv1"]
        run_ffmpeg(["-v", "error", *picture, f"file:{tmp_path}/v/a/{name}.mkv"], timeout_seconds=60)
    command = ("prep", "folder", "--source", tmp_path / "v", "--out", tmp_path / "x", "--height", 16, "--frames", 2)
    assert vidpipe(*command, "--codec", codec, "--max-rejects", "50%").code == 0
    reject = json.loads((tmp_path / "x/train/rejects.jsonl").read_text())
    assert (reject["path"], reject["stage"], reject["reason"]) == ("a/wide.mkv", "encode", "encode")
    assert "65500" in reject["message"] if codec == "jpeg" else "72000x16" in reject["message"]


@pytest.mark.parametrize(("text", "videos", "allowed"), [("29%", 100, 29), ("57 %", 100, 57), ("2.3%", 1000, 23)])
def test_the_budget_is_exact(text: str, videos: int, allowed: int) -> None:
    budget = PrepRecipe.model_validate({"dataset": "folder", "max_rejects": text}).max_rejects
    assert is_within_budget(allowed, videos, budget) and not is_within_budget(allowed + 1, videos, budget)


@pytest.fixture
def annotated(motion_shards: Path, tmp_path: Path) -> Path:
    """A folder of 16 videos that `labels.csv` names."""
    source = Path(shutil.copytree(motion_shards / "videos" / "val", tmp_path / "videos"))
    paths = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*.mp4"))]
    _annotate(source, paths)
    return source


def _annotate(source: Path, paths: list[str]) -> None:
    (source / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.partition('/')[0]}\n" for path in paths))


@pytest.fixture
def prep(annotated: Path, vidpipe: RunCommand, tmp_path: Path) -> Prep:
    """Prepares `annotated`, three videos a shard; gives the summary of its split, or else the error."""

    def run(*options: object, out: str = "out") -> Any:
        command = ("prep", "csv", "--source", annotated, "--set", "annotations=labels.csv", "--out", tmp_path / out)
        clip = ("--frames", 4, "--clips", 1, "--height", 64, "--shard-size-mb", 0.2)
        result = vidpipe(*command, *clip, "--json", *options)
        if result.code:
            return result.err
        summary = json.loads(result.out)
        return {**summary, **summary["splits"]["train"]}

    return run


def test_rows_that_cannot_be_read_are_within_the_budget_or_nothing_begins(
    annotated: Path, prep: Prep, tmp_path: Path, vidpipe: RunCommand
) -> None:
    with (annotated / "labels.csv").open("a") as table:
        table.write("left/0000.mp4,left,and,more\n")
    assert "1 of 17 annotation rows can't be read (5.9%), but --max-rejects allows 5.0%" in prep("--max-rejects", "5%")
    assert not (tmp_path / "out").exists()
    assert prep("--max-rejects", "6%")["written"] == 16
    assert prep("--max-rejects", "5%")["made_shards"] == 0, "what is finished needs no rows"


def test_mended_and_arrived_videos_are_taken_in_when_asked(
    annotated: Path, prep: Prep, tmp_path: Path, vidpipe: RunCommand
) -> None:
    damaged, missing = annotated / "left" / "0000.mp4", annotated / "grow" / "0001.mp4"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 3])
    missing.rename(tmp_path / "elsewhere.mp4")
    first = prep("--max-rejects", "20%")
    assert (first["videos"], first["written"], first["rejected"]) == (16, 14, 2)
    rejects = [json.loads(line) for line in (tmp_path / "out/train/rejects.jsonl").read_text().splitlines()]
    shards = {reject["path"]: reject["shard"] for reject in rejects}
    assert set(shards) == {"left/0000.mp4", "grow/0001.mp4"}
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/train").glob("*.tar")}
    assert prep("--max-rejects", "20%", "--retry-rejects")["made_shards"] == 1, "one that is missing still isn't tried"

    damaged.write_bytes(whole)
    assert "--retry-rejects" in prep()
    before = contents(tmp_path / "out")
    assert "made with other options" in prep("--retry-rejects", "--seed", 5)
    (annotated / "right" / "0000.mp4").rename(tmp_path / "right.mp4")
    assert "1 videos of the finished data set are not in the source now, such as right/0000" in prep("--retry-rejects")
    (tmp_path / "right.mp4").rename(annotated / "right" / "0000.mp4")
    assert contents(tmp_path / "out") == before

    (tmp_path / "elsewhere.mp4").rename(missing)
    unlike = ("--set", "horizontal_flip=false")  # which no shard depends on
    again = prep("--retry-rejects", *unlike)
    assert (again["written"], again["rejected"]) == (16, 0)
    assert again["notes"] == ["its manifest now says horizontal_flip false, no more true"]
    assert again["made_shards"] == len(set(shards.values())) and again["reused_shards"] > 1
    kept = {name for name in times if (tmp_path / "out/train" / name).stat().st_mtime_ns == times[name]}
    assert kept == set(times) - set(shards.values()), "shards without a mended or an arrived video stay"
    assert vidpipe("verify", tmp_path / "out", "--deep").code == 0
    prep(*unlike, out="whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_of_rejects_alone_is_made_again_and_no_other(annotated: Path, prep: Prep, tmp_path: Path) -> None:
    single = ("--limit", 3, "--shard-size-mb", 0.07, "--max-rejects", "40%")
    assert prep(*single, out="whole")["made_shards"] == 3
    middle = annotated / read_samples(tmp_path / "whole/train").to_pylist()[1]["video"]
    content = middle.read_bytes()
    middle.write_bytes(b"")
    assert prep(*single)["rejected"] == 1
    middle.write_bytes(content)
    again = prep(*single, "--retry-rejects")
    assert (again["made_shards"], again["reused_shards"]) == (1, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_rejects_are_listed_in_the_plans_order(annotated: Path, prep: Prep, tmp_path: Path) -> None:
    """Whether they are missing or damaged."""
    assert prep("--shard-size-mb", 9)["made_shards"] == 1
    damaged, missing, *_ = read_samples(tmp_path / "out/train", ["video"])["video"].to_pylist()
    (annotated / damaged).write_bytes(b"")
    (annotated / missing).unlink()
    prep("--shard-size-mb", 9, "--max-rejects", "20%", out="other")
    lines = (tmp_path / "other/train/rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [damaged, missing]


def test_names_that_print_alike_or_hold_line_separators_are_counted_each(
    annotated: Path, prep: Prep, tmp_path: Path, vidpipe: RunCommand
) -> None:
    """They are counted by their numbers, and a reject's line ends where it ends."""
    video = (annotated / "left" / "0000.mp4").read_bytes()
    alike, separated = (b"\xff.mp4", b"\\xff.mp4"), ("a\u2028b.mp4", "c\u0085d.mp4")
    folder = Path(shutil.move(annotated, tmp_path / "named"))
    (folder / "labels.csv").unlink()
    for name in alike:
        (folder / "left" / os.fsdecode(name)).write_bytes(video)
    for name in separated:
        (folder / "left" / name).write_bytes(b"")
    command = ("prep", "folder", "--source", folder, "--out", tmp_path / "out", "--frames", 4, "--height", 64)
    result = vidpipe(*command, "--max-rejects", "10%", "--json")
    assert result.code == 0, result.err
    counts = json.loads(result.out)["splits"]["train"]
    assert (counts["videos"], counts["written"], counts["rejected"]) == (20, 18, 2)
    manifest = load_manifest(tmp_path / "out/train")
    assert manifest.labels["left"] == 4 and sum(manifest.sources.sizes.values()) == 18
    assert vidpipe("verify", tmp_path / "out", "--deep").code == 0
    for name in separated:
        (folder / "left" / name).write_bytes(video)
    assert vidpipe(*command, "--retry-rejects").code == 0
    assert load_manifest(tmp_path / "out/train").counts.written == 20


def test_a_part_that_lost_a_row_or_some_of_it_is_found_before_anything_is_written(
    annotated: Path, prep: Prep, tmp_path: Path
) -> None:
    (annotated / "left" / "0000.mp4").write_bytes(b"")
    assert "1 of 16 videos rejected" in prep()
    out = tmp_path / "out/train"
    part = sorted((out / PARTS_FOLDER).glob("*.json"))[1]
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    assert f"{part}: can't be read: " in prep("--max-rejects", "10%")
    part.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert "00001.tar: 2 samples of 2 videos in its part file, but 3 of 3 were written" in prep("--max-rejects", "10%")
    assert not list(out.glob("samples.parquet*")) and not list(out.glob("manifest.json*"))
    (out / "00001.tar").unlink()
    assert prep("--max-rejects", "10%")["written"] == len(read_samples(out)) == 15
