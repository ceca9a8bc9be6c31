"""Prediction on raw files: the same numbers as evaluation on shards, and bad files don't stop good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.shards.index import read_samples
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.predict import Prediction, find_videos, predict


@pytest.fixture(scope="module")
def run(real_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on the real clips."""
    recipe = toy_recipe(
        data={"frames": 4, "stride": 4, "size": 32, "batch_size": 4}, schedule={"steps": 2, "warmup_steps": 0}
    )
    out = tmp_path_factory.mktemp("run")
    train(recipe, shards=real_shards, out=out, device="cpu", quiet=True)
    return out


def test_a_raw_file_gets_the_probability_that_its_shard_gets(run: Path, real_shards: Path, videos_dir: Path) -> None:
    evaluation = evaluate(run, shards=real_shards, device="cpu", backend="torch")
    files = [videos_dir / score.video for score in evaluation.scores]
    result = predict(run, files, top=1, device="cpu")
    assert result.exit_code == 0
    for score, prediction in zip(evaluation.scores, result.predictions, strict=True):
        assert prediction.error is None
        assert prediction.top[0].probability == pytest.approx(score.probability, abs=1e-6)
    assert sorted(score.video for score in evaluation.scores) == sorted(
        set(read_samples(real_shards / "val", ["video"])["video"].to_pylist())
    )


def test_a_bad_file_is_one_line_and_the_others_go_through(run: Path, videos_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    seen: list[Prediction] = []
    files = [tmp_path / "text.mp4", videos_dir / "xvid.avi", tmp_path / "missing.mp4"]
    result = predict(run, files, top=3, device="cpu", on_prediction=seen.append)
    assert result.exit_code == 1
    assert list(result.predictions) == seen
    bad, good, missing = seen
    assert bad.error
    assert missing.error
    assert "\n" not in bad.error + missing.error
    assert len(good.top) == 3
    assert good.top[0].probability >= good.top[1].probability >= good.top[2].probability
    assert good.to_json()["top"][0]["name"] == good.top[0].name


def test_folders_are_searched_for_videos(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/2.MP4", "a/1.avi", "a/notes.txt", "a/.hidden.mp4"):
        (tmp_path / name).touch()
    found = find_videos([tmp_path / "a", Path("x.mkv")], suffixes=(".mp4", ".avi"))
    assert found == [tmp_path / "a/1.avi", tmp_path / "a/b/2.MP4", Path("x.mkv")]
    with pytest.raises(UsageError, match="no video files"):
        find_videos([tmp_path], suffixes=(".webm",))
