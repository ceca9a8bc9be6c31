from __future__ import annotations

import pytest

from vidpipe.datasets import list_formats
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.recipes import list_recipes

#: What the train recipes count on: frames, sampling, stride, codec, flip.
GEOMETRY = {
    "csv": (32, "stride", 2, "tensor", True),
    "folder": (32, "stride", 2, "tensor", True),
    "hmdb51": (32, "stride", 2, "tensor", True),
    "kinetics400": (32, "stride", 2, "tensor", True),
    "kinetics600": (64, "stride", 4, "jpeg", True),
    "kinetics700": (64, "stride", 4, "jpeg", True),
    "list": (32, "stride", 2, "tensor", True),
    "motion": (16, "stride", 2, "tensor", False),
    "msrdailyactivity3d": (32, "uniform", 1, "tensor", True),
    "ssv2": (32, "uniform", 1, "tensor", False),
    "ucf101": (64, "stride", 1, "tensor", True),
}


@pytest.mark.parametrize("name", sorted(GEOMETRY))
def test_recipe_is_valid_and_stores_what_training_reads(name: str) -> None:
    recipe, options = load_prep_recipe(name)
    clip = recipe.clip_spec("train")
    assert (clip.frames, clip.sampling, clip.stride, recipe.codec, recipe.horizontal_flip) == GEOMETRY[name]
    assert type(options) is list_formats()[recipe.dataset]
    assert clip.height == (64 if name == "motion" else 240)


def test_every_recipe_and_every_format_is_covered() -> None:
    assert set(list_recipes("prep")) == set(GEOMETRY)
    assert {load_prep_recipe(name)[0].dataset for name in GEOMETRY} == set(list_formats())


def test_four_clips_of_each_kinetics400_validation_video() -> None:
    recipe, _ = load_prep_recipe("kinetics400")
    assert (recipe.clip_spec("train").clips, recipe.clip_spec("val").clips) == (1, 4)
