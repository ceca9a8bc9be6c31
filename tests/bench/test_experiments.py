"""`vidpipe bench experiments`, cut down to a few steps: every variant trains, and what is done is not done again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.bench.experiments import run
from vidpipe.bench.experiments.definitions import EXPERIMENTS
from vidpipe.bench.experiments.on_the_fly import OnTheFlyLoader
from vidpipe.loader import Loader
from vidpipe.train.recipe import load_train_recipe


@pytest.mark.parametrize(
    "variant", [v for e in EXPERIMENTS.values() for v in e.variants.values()], ids=lambda v: v.recipe
)
def test_every_variant_is_a_valid_recipe(variant: object) -> None:
    for experiment in EXPERIMENTS.values():
        if variant in experiment.variants.values():
            load_train_recipe(variant.recipe, [*experiment.settings, *variant.settings])


@pytest.mark.slow
def test_variants_are_trained_once_and_reported(
    tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity = EXPERIMENTS["parity"]
    short = ("schedule.steps=2", "schedule.warmup_steps=1", "eval.every_steps=2", "checkpoint.every_epochs=0")
    small = ("--set", "train_videos=4", "--set", "val_videos=1")
    monkeypatch.setitem(EXPERIMENTS, "parity", replace(parity, settings=short, prep=small))
    result = vidpipe("bench", "experiments", "parity", "--out", tmp_path, "--seeds", 1, "--json")
    assert result.code == 0, result.err
    results = json.loads(result.out)["results"]
    assert [r["variant"] for r in results] == ["decord on the fly", "tensor", "jpeg"]
    assert all(0 <= r["top1"][0] <= 1 for r in results)
    assert json.loads((tmp_path / "experiments.json").read_bytes())["results"] == results
    monkeypatch.setattr(run, "_train", lambda *_, **__: pytest.fail("trained again"))
    again = vidpipe("bench", "experiments", "parity", "--out", tmp_path, "--seeds", 1, "--json")
    assert json.loads(again.out)["results"] == results


def test_an_unknown_experiment_is_named(tmp_path: Path, vidpipe: RunCommand) -> None:
    result = vidpipe("bench", "experiments", "paritty", "--out", tmp_path)
    assert result.code == 2 and "did you mean parity?" in result.err


def test_the_on_the_fly_loader_gives_what_the_shards_hold(motion_shards: Path) -> None:
    """The same labels for the same videos, and frames that are those of the videos, here without any crop."""
    settings = ["data.crop_scale=[1,1]", "data.frames=16", "data.stride=2", "data.size=64"]
    section = load_train_recipe("vivit-tiny", settings).data
    slow = OnTheFlyLoader(motion_shards, motion_shards / "videos", section, batch_size=8, seed=0)
    fast = Loader(motion_shards, batch_size=8, size=64)
    expected = {
        path: (label, clip) for b in fast for path, label, clip in zip(b.video_path, b.label, b.video, strict=True)
    }
    seen = []
    for batch in slow:
        for path, label, clip in zip(batch.video_path, batch.label, batch.video, strict=True):
            video = str(Path(path).relative_to(motion_shards / "videos"))
            seen.append(video)
            assert label == expected[video][0]
            assert clip.shape == expected[video][1].shape
            assert (clip - expected[video][1]).abs().mean() < 0.25
    assert sorted(seen) == sorted(expected)
    fast.close()
