"""`train RECIPE --dry-run` for every recipe: on clips as its data set's prep recipe stores them, and on 16 x 2 clips.

The clips that its data set stores for evaluation have to go with those that it trains on.

What costs time here, a model's depth and width, is reduced, so that all of them are run; inputs and everything else are
those of the recipe.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import RunCommand
from forked import command, start_ranks
from generated_video import write_video

from tests.train.toy import TOY, MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.loader import Batch
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.recipes import list_recipes
from vidpipe.shards.manifest import find_split, load_manifest
from vidpipe.train import dry_run as dry_run_module
from vidpipe.train.data import ClipLoader, open_eval_loader, open_train_loader, preprocessing_of
from vidpipe.train.dry_run import dry_run
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.step import Learner

DATASETS = {
    "kinetics400": ("vivit", "mini-vivit", "mini-vivit-distill"),
    "kinetics600": ("timesformer", "timesformer-8x4", "timesformer-8x16", "timesformer-8x24", "videomae-pretrain"),
    "ssv2": (
        *("videomae", "videomae-no-cutmix", "videomae-pretrain-ssv2"),
        *("vit-llama", "vit-llama-baseline", "vit-llama-small", "vit-llama-small-baseline"),
    ),
    "ucf101": (
        *("videomae-ucf101", "videomae-ucf101-no-cutmix", "videomae-ucf101-short", "videomae-ucf101-short-cutmix"),
        "videomae-pretrain-ucf101",
    ),
    "hmdb51": (
        *("r2plus1d", "r2plus1d-bert", "r2plus1d-perceiver"),
        *("r2plus1d-perceiver-cross", "r2plus1d-perceiver-self", "r2plus1d-perceiver-7blocks"),
        *("r2plus1d-perceiver-2self", "r2plus1d-perceiver-6self", "r2plus1d-perceiver-6blocks-6self"),
        *("r2plus1d-perceiver-4blocks-6self", "r2plus1d-perceiver-4blocks-12self"),
    ),
    "msrdailyactivity3d": ("resnet-temporal", "vivit-msr", "mini-vivit-msr"),
    "motion": ("vivit-tiny", "timesformer-tiny", "r2plus1d-tiny", "r2plus1d-perceiver-tiny"),
}
DATASET_OF = {recipe: dataset for dataset, recipes in DATASETS.items() for recipe in recipes}
NARROW = {"width": 96, "num_heads": 3}
REDUCED = {
    "mini-vivit": {**NARROW, "spatial_depth": 2, "temporal_depth": 1},
    "r2plus1d": {"layers": "[1, 1, 1, 1]", "width": 16},
    "r2plus1d-bert": {"layers": "[1, 1, 1, 1]", "width": 16},
    "r2plus1d-perceiver": {"layers": "[1, 1, 1, 1]", "width": 16, "num_blocks": 4, "latent_width": 128},
    "resnet-temporal": {**NARROW, "backbone": "resnet18", "depth": 1},
    "timesformer": {**NARROW, "depth": 1},
    "videomae": {**NARROW, "depth": 1},
    "videomae-small": {**NARROW, "depth": 1},
    "videomae-pretrain": {**NARROW, "depth": 1, "decoder_width": 48, "decoder_heads": 3, "decoder_depth": 1},
    "vit-llama": {**NARROW, "depth": 1, "llama_width": 192, "llama_heads": 3, "llama_hidden": 384},
    "vit-llama-small": {**NARROW, "depth": 1, "llama_width": 192, "llama_heads": 3, "llama_hidden": 384},
    "vivit": {**NARROW, "spatial_depth": 1, "temporal_depth": 1},
}
MakeShards = Callable[[str], Path]
recipes = pytest.mark.parametrize(
    "name",
    [name if name.endswith("-tiny") else pytest.param(name, marks=pytest.mark.slow) for name in list_recipes("train")],
)


@pytest.fixture(scope="session")
def shards_like(tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]) -> MakeShards:
    """Makes, once for each data set, shards of two videos as its prep recipe would store them; `16x2` is a geometry."""
    folder = tmp_path_factory.mktemp("miniature")
    lines = []
    for label, seconds in (("a", 4), ("b", 6)):
        write_video(folder / f"{label}.mp4", f"testsrc2=size=320x240:rate=25:duration={seconds}")
        lines.append(f"{label}.mp4,{label}")
    for split in ("train", "val"):
        rows = ["path,label,split", *(f"{line},{split}" for line in lines)]
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    made: dict[str, Path] = {}

    def options(name: str, split: str) -> tuple[Any, ...]:
        if name == "motion":
            return ("motion", "--source", folder / "motion", "--set", "train_videos=1", "--set", "val_videos=1")
        base = ("csv", "--source", folder, "--set", f"annotations={split}.csv")
        if name == "16x2":
            return (*base, "--frames", 16, "--stride", 2)
        recipe = load_prep_recipe(name)[0]
        clip = recipe.clip_spec(split).model_dump(include={"frames", "sampling", "clips", "height"})
        settings = {**clip, "stride": recipe.stride, "codec": recipe.codec}
        flip = str(recipe.horizontal_flip).lower()
        items = [*(f"{key}={'null' if value is None else value}" for key, value in settings.items())]
        return (*base, *(x for item in [*items, f"horizontal_flip={flip}"] for x in ("--set", item)))

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder / f"shards-{name}"
            with redirect_stdout(io.StringIO()):
                for split in ("train", "val"):
                    arguments = (*options(name, split), "--split", split, "--out", made[name])
                    assert session_command("prep", *arguments) == 0
        return made[name]

    return make


def tried(vidpipe: RunCommand, name: str, shards: Path, *options: object) -> dict[str, Any]:
    reduced = REDUCED.get(load_train_recipe(name).model.name, {})
    if name.endswith("-tiny"):
        reduced = {}
    sets = [x for key, value in reduced.items() for x in ("--set", f"model.{key}={value}")]
    result = vidpipe("train", name, "--shards", shards, "--dry-run", "--device", "cpu", "--json", *sets, *options)
    assert result.code == 0, result.err
    report: dict[str, Any] = json.loads(result.out)
    return report


def test_every_recipe_has_a_data_set() -> None:
    assert sorted(DATASET_OF) == sorted(list_recipes("train"))


@recipes
def test_a_recipe_runs_on_what_its_data_set_stores(vidpipe: RunCommand, shards_like: MakeShards, name: str) -> None:
    recipe, shards = load_train_recipe(name), shards_like(DATASET_OF[name])
    report = tried(vidpipe, name, shards)
    clip = [3, recipe.data.frames, recipe.data.size, recipe.data.size]
    assert report["video"] == [1, *clip]
    assert 0 < report["loss"] < 20
    assert report["classes"] == (8 if DATASET_OF[name] == "motion" else 2)
    preprocessing = preprocessing_of(load_manifest(find_split(shards, "train")), recipe.data)
    with open_eval_loader(
        shards, split="val", preprocessing=preprocessing, batch_size=1, device="cpu", section=recipe.data
    ) as loader:
        assert list(next(iter(loader)).video.shape) == [1, *clip]


@recipes
def test_a_recipe_runs_on_sixteen_frames_at_stride_two(vidpipe: RunCommand, shards_like: MakeShards, name: str) -> None:
    recipe = load_train_recipe(name)
    report = tried(vidpipe, name, shards_like("16x2"), "--frames", 16, "--stride", 2)
    assert report["video"] == [1, 3, 16, recipe.data.size, recipe.data.size]
    assert 0 < report["loss"] < 20


@pytest.mark.slow
@pytest.mark.parametrize(("name", "frames"), [("vivit", 8), ("videomae-pretrain", 16), ("r2plus1d", 16)])
def test_models_of_full_size_take_a_step_too(
    vidpipe: RunCommand, shards_like: MakeShards, name: str, frames: int
) -> None:
    shards = shards_like(DATASET_OF[name])
    result = vidpipe("train", name, "--shards", shards, "--dry-run", "--device", "cpu", "--json", "--frames", frames)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["parameters"] > 30e6 and 0 < report["loss"] < 20


def test_it_reports_and_writes_nothing(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run_module, "_SLOW_STEP_SECONDS", math.inf)
    recipe = toy_recipe(model={"init": "some-weights"}, schedule={"steps": None, "epochs": 4})
    report = dry_run(recipe, shards=toy_shards, device="cpu")
    assert report.video == (1, 3, 4, 16, 16)
    assert (report.clips, report.classes) == (26, 4)
    assert (report.steps_per_epoch, report.total_steps) == (3, 12)  # of the recipe's batches, not of this one
    assert report.parameters == report.trained_parameters > 10_000
    assert report.loss == pytest.approx(1.386, abs=0.2)
    assert any("random weights instead of some-weights" in note for note in report.notes)
    assert any("add --batch-size 8 to see whether it fits" in note for note in report.notes)
    assert any(line.startswith("step") and "forward" in line for line in report.lines())
    whole = dry_run(toy_recipe(), shards=toy_shards, batch_size=8, device="cpu")
    assert whole.video[0] == 8 and whole.steps == 2 and not whole.notes
    assert not list(tmp_path.iterdir())


def test_one_clip_is_tried_without_what_needs_several(toy_shards: Path, toy_recipe: MakeRecipe) -> None:
    mixed = toy_recipe(mixing={"mixup": 0.8}, data={"clips_per_sample": 2})
    one = dry_run(mixed, shards=toy_shards, device="cpu")
    assert one.video[0] == 1
    assert one.notes[0].startswith("batch size 1 here without the 2 clips of a sample and mixing, 8 in the recipe")
    assert dry_run(mixed, shards=toy_shards, batch_size=4, device="cpu").video[0] == 4
    with pytest.raises(UsageError, match="which takes 4"):
        dry_run(mixed, shards=toy_shards, batch_size=2, device="cpu")


def test_a_slow_first_step_is_the_only_one(
    toy_shards: Path, toy_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run_module, "_SLOW_STEP_SECONDS", 0.0)
    taken: list[int] = []
    monkeypatch.setattr(Learner, "apply_gradients", lambda self, *, step: taken.append(step))
    report = dry_run(toy_recipe(), shards=toy_shards, device="cpu")
    assert report.steps == 1 and taken == [0]
    assert "it was the only one" in report.notes[-1] and report.loss > 0


class SlowLoader:
    """A loader whose every batch takes its time, as it is asked for or ahead."""

    def __init__(self, loader: ClipLoader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __enter__(self) -> SlowLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._loader.close()

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            time.sleep(0.03)
            yield batch


def test_a_slow_loader_shows(toy_shards: Path, toy_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any, **kwargs: Any) -> SlowLoader:
        return SlowLoader(open_train_loader(*args, **kwargs))

    monkeypatch.setattr("vidpipe.train.dry_run.open_train_loader", slow)
    assert dry_run(toy_recipe(), shards=toy_shards, device="cpu").batch_seconds >= 0.03


@pytest.mark.slow
def test_several_processes_try_a_step_together_and_one_reports(toy_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**TOY, "strategy": "fsdp"}))
    what = ("train", tmp_path / "toy.yaml", "--shards", toy_shards, "--device", "cpu", "--batch-size", 8)
    said = [process.finish() for process in start_ranks(2, command, *what, "--dry-run")]
    assert "2 process(es)" in said[0] and "batch 4 x 3" in said[0] and "clips/s" not in said[1]
