"""`vidpipe bench experiments`, cut down to a few steps: every variant trains, and what is done is not done again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import RunCommand

from vidpipe.bench.experiments import run
from vidpipe.bench.experiments.definitions import EXPERIMENTS, Variant
from vidpipe.bench.experiments.jobs import Job, job_of, pretraining_of
from vidpipe.bench.experiments.on_the_fly import OnTheFlyLoader
from vidpipe.bench.experiments.page import FIGURES, read_figures, renew_page, renewed
from vidpipe.bench.experiments.results import (
    ExperimentsReport,
    Run,
    VariantResult,
    describe_setup,
    finished_run,
    save_run,
)
from vidpipe.errors import UsageError
from vidpipe.loader import Loader
from vidpipe.models import create_model
from vidpipe.train.recipe import load_train_recipe

REPOSITORY = Path(__file__).parents[2]
JOBS = [job_of(name, variant, seed=0) for name, experiment in EXPERIMENTS.items() for variant in experiment.variants]
PRETRAININGS = [pretraining_of(name) for name, experiment in EXPERIMENTS.items() if experiment.pretraining]


@pytest.mark.parametrize("job", [*JOBS, *PRETRAININGS], ids=lambda job: f"{job.folder}-{job.name}")
def test_every_variant_is_a_recipe_and_a_model(job: Job) -> None:
    recipe = load_train_recipe(job.variant.recipe, job.overrides(Path("out")))
    sizes = {"num_frames": recipe.data.frames, "image_size": recipe.data.size}
    create_model(recipe.model.name, num_classes=8, **sizes, **(recipe.model.model_extra or {}))
    assert recipe.model.init == ("out/cutmix/pretraining" if job.variant.pretrained else None)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_variants_are_trained_once_and_reported(
    tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity = EXPERIMENTS["parity"]
    short = ("schedule.steps=2", "schedule.warmup_steps=1", "eval.every_steps=2", "checkpoint.every_epochs=0")
    small = ("--set", "train_videos=4", "--set", "val_videos=1")
    reduced = replace(
        parity,
        settings=short,
        prep=small,
        variants={**parity.variants, "tensor": Variant(recipe="vivit-tiny", pretrained=True)},
        pretraining=Variant(recipe="vivit-tiny", settings=short, prep=(*small, "--set", "labels=kind")),
    )
    monkeypatch.setitem(EXPERIMENTS, "parity", reduced)
    result = vidpipe("bench", "experiments", "parity", "--out", tmp_path, "--seeds", 1, "--json")
    assert result.code == 0, result.err
    results = json.loads(result.out)["results"]
    assert [r["variant"] for r in results] == ["decord on the fly", "tensor", "jpeg"]
    assert all(0 <= r["runs"][0]["top1"] <= 1 for r in results)
    assert [len(r["runs"][0]["commands"]) for r in results] == [2, 4, 2]
    assert "--set model.init=benchmarks/experiments/parity/pretraining" in results[1]["runs"][0]["commands"][-1]
    written = (tmp_path / "experiments.json").read_text()
    assert json.loads(written)["results"] == results and str(tmp_path) not in written
    monkeypatch.setattr(run, "_train", lambda *_, **__: pytest.fail("trained again"))
    page = tmp_path / "page.md"
    page.write_text("| parity | x |\n|---|---|\n")
    again = vidpipe("bench", "experiments", "parity", "--out", tmp_path, "--seeds", 1, "--page", page, "--json")
    assert json.loads(again.out)["results"] == results
    assert "| decord on the fly |" in page.read_text()


def made_up(experiment: str, *top1: float) -> VariantResult:
    setup, load = describe_setup()
    runs = tuple(
        Run(seed=i, top1=t, top5=1, loss=1, videos=8, seconds=1, load=load, commands=("a", "b"), setup=setup)
        for i, t in enumerate(top1)
    )
    return VariantResult(experiment=experiment, variant="a thing", runs=runs)


def test_a_run_of_other_commands_does_not_count(tmp_path: Path) -> None:
    (made,) = made_up("parity", 0.5).runs
    save_run(tmp_path / "run.json", made)
    assert finished_run(tmp_path / "run.json", ["a", "b"]) == made
    assert finished_run(tmp_path / "run.json", ["a", "c"]) is None
    assert finished_run(tmp_path / "other.json", ["a", "b"]) is None


def test_a_pages_tables_are_renewed_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n| parity | x |\n|---|---|\n| old | 1 |\n\n| cutmix | x |\n|---|---|\n| kept | 2 |\n")
    renew_page(page, ExperimentsReport(results=(made_up("parity", 0.25, 0.75),)))
    table = "| parity | top-1 | spread | seed 0 | seed 1 |\n| --- | --- | --- | --- | --- |\n"
    table += "| a thing | 50.0% | 35.4% | 25.0% | 75.0% |\n"
    assert page.read_text() == f"Text.\n\n{table}\n| cutmix | x |\n|---|---|\n| kept | 2 |\n"
    renew_page(page, ExperimentsReport(results=(made_up("cutmix", 0.5),)))
    assert "| a thing | 50.0% | 0.0% | 50.0% |" in page.read_text() and table in page.read_text()
    assert read_figures(tmp_path / FIGURES).experiments == ("parity", "cutmix")
    with pytest.raises(UsageError, match=r"page.md: 0 tables begin with `\| frame-interval \|`"):
        renew_page(page, ExperimentsReport(results=(made_up("frame-interval", 0.5),)))


def test_the_documented_tables_are_those_of_the_committed_numbers() -> None:
    page = REPOSITORY / "docs/experiments.md"
    report = read_figures(page.parent / FIGURES)
    assert renewed(page.read_text(), report, where=str(page)) == page.read_text()
    for result in report.results:
        jobs = [job_of(result.experiment, result.variant, seed=run.seed) for run in result.runs]
        assert [run.commands for run in result.runs] == [job.commands() for job in jobs]


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
