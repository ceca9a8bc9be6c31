"""`train RECIPE --dry-run` for every recipe: on clips as its data set's prep recipe stores them, and on 16 x 2 clips.

What costs time here, a model's depth and width, is reduced, so that all of them are run; inputs and everything else are
those of the recipe.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from command_line import RunCommand

from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.recipes import list_recipes
from vidpipe.train.recipe import load_train_recipe
from vidpipe.video.ffmpeg import run_ffmpeg

DATASETS = {  # what is not named here is for generated videos (`motion`)
    "kinetics400": ("vivit", "mini-vivit", "mini-vivit-distill"),
    "kinetics600": ("timesformer", "timesformer-8x4", "timesformer-8x16", "timesformer-8x24", "videomae-pretrain"),
    "ssv2": ("videomae", "videomae-no-cutmix", "videomae-pretrain-ssv2", "vit-llama", "vit-llama-small"),
    "ucf101": ("videomae-ucf101", "videomae-ucf101-no-cutmix", "videomae-pretrain-ucf101"),
    "hmdb51": (
        *("r2plus1d", "r2plus1d-bert", "r2plus1d-perceiver"),
        *("r2plus1d-perceiver-cross", "r2plus1d-perceiver-self"),
    ),
    "msrdailyactivity3d": ("resnet-temporal", "vivit-msr", "mini-vivit-msr"),
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
    lines = ["path,label"]
    for label, seconds in (("a", 4), ("b", 6)):
        source = ["-f", "lavfi", "-i", f"testsrc2=size=320x240:rate=25:duration={seconds}"]
        run_ffmpeg([*source, "-c:v", "libx264", "-y", str(folder / f"{label}.mp4")], timeout_seconds=60)
        lines.append(f"{label}.mp4,{label}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder / f"shards-{name}"
            base = ("csv", "--source", folder, "--set", "annotations=labels.csv")
            options: tuple[Any, ...] = (*base, "--frames", 16, "--stride", 2)
            if name == "motion":
                options = ("motion", "--source", folder / "motion", "--set", "train_videos=1", "--set", "val_videos=1")
            elif name != "16x2":
                recipe = load_prep_recipe(name)[0]
                clip = recipe.clip_spec("train").model_dump(include={"frames", "sampling", "clips", "height"})
                settings = {**clip, "stride": recipe.stride, "codec": recipe.codec}
                flip = str(recipe.horizontal_flip).lower()
                items = [*(f"{key}={'null' if value is None else value}" for key, value in settings.items())]
                options = (*base, *(x for item in [*items, f"horizontal_flip={flip}"] for x in ("--set", item)))
            with redirect_stdout(io.StringIO()):
                assert session_command("prep", *options, "--split", "train", "--out", made[name]) == 0
        return made[name]

    return make


def dry_run(vidpipe: RunCommand, name: str, shards: Path, *options: object) -> dict[str, Any]:
    reduced = REDUCED.get(load_train_recipe(name).model.name, {})
    if name.endswith("-tiny"):
        reduced = {}
    sets = [x for key, value in reduced.items() for x in ("--set", f"model.{key}={value}")]
    result = vidpipe("train", name, "--shards", shards, "--dry-run", "--device", "cpu", "--json", *sets, *options)
    assert result.code == 0, result.err
    report: dict[str, Any] = json.loads(result.out)
    return report


@recipes
def test_a_recipe_runs_on_what_its_data_set_stores(vidpipe: RunCommand, shards_like: MakeShards, name: str) -> None:
    recipe = load_train_recipe(name)
    report = dry_run(vidpipe, name, shards_like(DATASET_OF.get(name, "motion")))
    assert report["video"] == [1, 3, recipe.data.frames, recipe.data.size, recipe.data.size]
    assert 0 < report["loss"] < 20
    assert report["classes"] == (2 if name in DATASET_OF else 8)


@recipes
def test_a_recipe_runs_on_sixteen_frames_at_stride_two(vidpipe: RunCommand, shards_like: MakeShards, name: str) -> None:
    size = load_train_recipe(name).data.size
    report = dry_run(vidpipe, name, shards_like("16x2"), "--frames", 16, "--stride", 2)
    assert report["video"] == [1, 3, 16, size, size]
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
