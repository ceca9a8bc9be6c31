"""Recipes of train/: what is shipped is valid, wrong keys are named, the command line overrides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.color import ColorJitter
from vidpipe.models import create_model
from vidpipe.recipes import list_recipes
from vidpipe.train.data import open_eval_loader, open_train_loader, preprocessing_of
from vidpipe.train.optim import Schedule, run_length
from vidpipe.train.recipe import load_train_recipe


@pytest.mark.parametrize("name", sorted(list_recipes("train")))
def test_shipped_recipe_is_valid_and_makes_its_model_in_full_size(name: str) -> None:
    recipe = load_train_recipe(name)
    assert recipe.summary
    clip = {"num_frames": recipe.data.frames or 32, "image_size": recipe.data.size}
    with torch.device("meta"):
        model = create_model(recipe.model.name, num_classes=8, **clip, **recipe.model.config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (parameters < 2e6) == name.endswith("-tiny") and (name.endswith("-tiny") or parameters > 20e6)


@pytest.mark.parametrize(
    ("name", "videos", "lr", "min_lr", "epochs"),
    [
        ("videomae", 512, 1e-3, 2e-6, 50),
        ("videomae-ucf101", 128, 2.5e-4, 5e-6, 100),
        ("videomae-pretrain", 2048, 1.2e-3, 8e-5, 1600),
        ("videomae-pretrain-ucf101", 192, 2.25e-4, 7.5e-6, 3200),
        ("vit-llama", 12, 5e-4 * 12 / 256, 1e-6 * 12 / 256, 30),
        ("vit-llama-baseline", 12, 5e-4 * 12 / 256, 1e-6 * 12 / 256, 30),
        ("vit-llama-small", 24, 1e-3 * 24 / 256, 1e-6 * 24 / 256, 40),
        ("vit-llama-small-baseline", 24, 1e-3 * 24 / 256, 1e-6 * 24 / 256, 40),
        ("r2plus1d-bert", 128, 1e-5, 0, 200),
    ],
)
def test_rates_of_a_step_are_those_of_the_official_scripts(
    name: str, videos: int, lr: float, min_lr: float, epochs: int
) -> None:
    recipe = load_train_recipe(name)
    assert recipe.data.batch_size // recipe.data.clips_per_sample == videos
    assert recipe.optim.lr * recipe.rate_scale == pytest.approx(lr)
    assert recipe.schedule.min_lr * recipe.rate_scale == pytest.approx(min_lr)
    assert recipe.schedule.epochs == epochs


@pytest.mark.parametrize("name", ["vivit", "vivit-msr", "mini-vivit"])
def test_vivits_rate_falls_from_the_end_of_the_warm_up_on_as_scenics_does(name: str) -> None:
    recipe, optimizer = load_train_recipe(name), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    length = run_length(recipe.schedule, steps_per_epoch=100)
    schedule = Schedule(optimizer, recipe.schedule, length)
    for step in (250, 1000):
        schedule.set_step(step)
        assert schedule.lr == pytest.approx(0.5 * (1 + math.cos(math.pi * (step - 250) / (length.total - 250))))


def test_options_override_the_recipe_and_set_overrides_too() -> None:
    recipe = load_train_recipe(
        "vivit", ["optim.lr=0.1", "model.width=96"], epochs=2, batch_size=4, frames=8, stride=4, size=64
    )
    assert (recipe.optim.lr, recipe.schedule.epochs, recipe.data.batch_size) == (0.1, 2, 4)
    assert (recipe.data.frames, recipe.data.stride, recipe.data.size) == (8, 4, 64)
    assert recipe.model.config["width"] == 96
    assert load_train_recipe("vivit", ["data.batch_size=2"], batch_size=4).data.batch_size == 2, (
        "--set has the last word"
    )


def test_a_length_in_steps_replaces_the_recipes_epochs_and_the_other_way_round() -> None:
    by_steps = load_train_recipe("vivit", ["schedule.steps=7", "schedule.warmup_steps=2"])
    assert (by_steps.schedule.steps, by_steps.schedule.epochs, by_steps.schedule.warmup_epochs) == (7, None, None)
    assert load_train_recipe("vivit-tiny", epochs=3).schedule.epochs == 3
    with pytest.raises(UsageError, match=r"give one of epochs and steps, got epochs 3\.0 and steps 7"):
        load_train_recipe("vivit", ["schedule.steps=7"], epochs=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"optim.lrr.*did you mean lr"),
        ("optim.lr=-1", r"optim.lr.*greater than 0"),
        ("model.num_frames=8", r"data\.frames"),
        ("schedule.epochs=null", r"one of epochs and steps"),
        ("precision=fp8", r"precision"),
        ("schedule.name=plateau", r"plateau goes by evaluations: set eval.every_epochs or eval.every_steps"),
        ("data.color_jitter={hue: 0.7}", r"data.color_jitter.hue.*0.5"),
        ("data.affine={rotate: 10}", r"data.affine.rotate.*allowed: prob, rotation"),
        ("data.affine={scale: [2, 1]}", r"data.affine.scale: got \[2, 1\]: expected two factors above 0, in order"),
        ("mixing.mixup=-1", r"mixing.mixup: got -1"),
        ("schedule.epochs=.inf", r"schedule\.epochs: got inf: Input should be a finite number"),
        ("optim.lr=.inf", r"optim\.lr: got inf"),
        ("optim.betas=[0.9,1.0]", r"optim\.betas: got 1\.0: Input should be less than 1"),
        ("schedule={name: multistep, epochs: 3, milestones: [2, 1]}", r"got \[2\.0, 1\.0\], expected ascending epochs"),
        (
            "schedule={name: multistep, epochs: 3, milestones: [-1]}",
            r"got \[-1\.0\], expected ascending epochs above 0",
        ),
    ],
)
def test_wrong_values_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_train_recipe("vivit", ["eval.every_epochs=0", override])
    assert "\n" not in str(caught.value)


def test_augmentation_of_the_recipe_reaches_the_loader(motion_shards: Path) -> None:
    changes = ["data.color_jitter.hue=0.1", "data.affine={rotation: 10, scale: [0.9, 1.1]}", "data.clips_per_sample=2"]
    section = load_train_recipe("vivit-tiny", changes, batch_size=4).data
    with open_train_loader(motion_shards, section, accumulate=1, device="cpu", seed=0) as loader:
        assert loader.options.color_jitter == ColorJitter(hue=0.1)
        assert loader.options.affine == Affine(rotation=10, scale=(0.9, 1.1))
        batch = next(iter(loader))
    assert batch.key[::2] == batch.key[1::2] and batch.clip_key[1] == f"{batch.key[0]}/1"
    section = load_train_recipe("vivit-tiny", ["data.augment=null"], batch_size=4).data
    assert section.crop_scale == (0.7, 1.0)
    with open_train_loader(motion_shards, section, accumulate=1, device="cpu", seed=0) as loader:
        assert loader.options.crop_scale == (0.08, 1.0)


def test_clips_are_fetched_in_the_same_way_to_learn_and_to_evaluate(motion_shards: Path) -> None:
    fetched = {"prefetch_batches": 0, "check": "off", "threads": 1, "on_bad": "skip", "max_bad": 0.5}
    section = load_train_recipe(
        "vivit-tiny", [f"data.{key}={value}" for key, value in fetched.items()], batch_size=4
    ).data
    with open_train_loader(motion_shards, section, accumulate=1, device="cpu", seed=0) as learned:
        preprocessing = preprocessing_of(learned.manifest, section)
        with open_eval_loader(
            motion_shards, split="val", preprocessing=preprocessing, batch_size=4, device="cpu", section=section
        ) as evaluated:
            for loader in (learned, evaluated):
                assert {key: getattr(loader.options, key) for key in fetched} == fetched


def test_selection_and_balance_of_the_recipe_reach_the_loader(motion_shards: Path) -> None:
    changes = ["data.where=label == 1 or label == 2 and clip == 0", "data.balance=class"]
    section = load_train_recipe("vivit-tiny", changes, batch_size=4).data
    with open_train_loader(motion_shards, section, accumulate=1, device="cpu", seed=0) as loader:
        assert loader.num_samples == 8
        assert {label for batch in loader for label in batch.label.tolist()} == {1, 2}


def test_a_recipe_can_extend_another(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("extends: vivit\nsummary: short\nschedule: {epochs: 3}\n")
    recipe = load_train_recipe(str(path))
    assert (recipe.schedule.epochs, recipe.optim.lr, recipe.summary) == (3, 0.05, "short")
    path.write_text("extends: vivit\nschedule: {steps: 300, warmup_steps: 9}\n")
    schedule = load_train_recipe(str(path)).schedule
    assert (schedule.steps, schedule.epochs, schedule.warmup_steps, schedule.warmup_epochs) == (300, None, 9, None)
    path.write_text("extends: vivitt\n")
    with pytest.raises(UsageError, match=r"short\.yaml: extends: no train recipe 'vivitt'; did you mean .*vivit"):
        load_train_recipe(str(path))
