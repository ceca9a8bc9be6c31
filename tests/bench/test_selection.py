"""Which clips benchmarks take, and which videos they prepare again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.bench.prepared import prepare_again
from vidpipe.bench.selection import select_clips
from vidpipe.errors import UsageError
from vidpipe.shards.features import FeatureSpec
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Manifest, load_manifest


@pytest.fixture
def changed(motion_shards: Path, tmp_path: Path) -> Path:
    """A split's folder like another one, to change its manifest."""
    for path in (motion_shards / "train").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "manifest.json").unlink()
    return tmp_path


def _manifest(motion_shards: Path) -> Manifest:
    return load_manifest(motion_shards / "train")


def test_shards_without_clips_are_not_the_first_ones(motion_shards: Path, changed: Path) -> None:
    manifest = _manifest(motion_shards)
    empty = manifest.shards[0].model_copy(update={"name": "99999.tar", "samples": 0})
    manifest.model_copy(update={"shards": (empty, *manifest.shards)}).write(changed)
    with select_clips(changed, None, split="train", max_bytes=1) as selection:
        assert selection.manifest.num_samples == manifest.shards[0].samples
        assert len(read_samples(selection.folder)) == manifest.shards[0].samples
        assert selection.notes[0].startswith(f"the first 1 of {len(manifest.shards) + 1} shards")


def test_features_are_no_clips(motion_shards: Path, changed: Path) -> None:
    made = FeatureSpec(backbone="resnet18", weights="0", width=512, dtype="float16", size=224, crops=1, source="0")
    _manifest(motion_shards).model_copy(update={"features": made}).write(changed)
    with (
        pytest.raises(UsageError, match="holds features, expected clips"),
        select_clips(changed, None, split="train", max_bytes=1),
    ):
        pass


def test_of_a_few_videos_more_may_be_rejected_than_of_all(
    small_videos: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    shutil.copytree(small_videos, tmp_path / "videos" / "class")
    clips = ("--height", 32, "--frames", 4, "--stride", 1, "--clips", 1, "--set", "layout=class")
    source = ("--source", tmp_path / "videos", "--max-rejects", "34%")
    made = vidpipe("prep", "folder", *source, *clips, "--out", tmp_path / "shards")
    assert made.code == 0, made.err
    manifest = load_manifest(tmp_path / "shards" / "train")
    (tmp_path / "again").mkdir()
    again = prepare_again(manifest, tmp_path / "videos", codec="jpeg", folder=tmp_path / "again", limit=2)
    counts = load_manifest(again).counts
    assert (counts.written, counts.rejected) == (1, 1)
