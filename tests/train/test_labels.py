"""Videos without a label teach a classifier nothing, and tell nothing of one: a run on them alone is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.train.dry_run import dry_run
from vidpipe.train.loop import train


@pytest.fixture(scope="module")
def partly_labelled(
    toy_shards: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> Path:
    """Eight videos of two classes in `train`, as many without a label in `test`."""
    folder, videos = tmp_path_factory.mktemp("partly"), toy_shards.parent / "videos"
    rows = [
        f"{number}.mkv,{'ab'[number % 2] if number < 8 else ''},{'train' if number < 8 else 'test'}"
        for number in range(16)
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    sets = ("--set", f"annotations={folder / 'labels.csv'}", "--frames", 6, "--stride", 2, "--height", 24)
    assert session_command("prep", "csv", "--source", videos, "--out", folder / "shards", "--workers", 1, *sets) == 0
    return folder / "shards"


def test_a_run_on_videos_without_labels_is_refused(
    partly_labelled: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no video of split 'test' has a label to learn"):
        train(toy_recipe(), shards=partly_labelled / "test", out=tmp_path / "run", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="no video of split 'test' has a label to learn"):
        dry_run(toy_recipe(), shards=partly_labelled / "test", device="cpu")
    evaluated = toy_recipe(eval={"split": "test"})
    with pytest.raises(UsageError, match=r"eval\.split: no video of 'test' has a label to compare with"):
        train(evaluated, shards=partly_labelled, out=tmp_path / "run", device="cpu", quiet=True)
    assert not (tmp_path / "run").exists()
