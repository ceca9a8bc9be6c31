"""Parts of a batch in which mixing would do nothing are refused, and not advised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.train.loop import train
from vidpipe.train.memory import step_advice
from vidpipe.train.parts import check_parts


def test_a_part_without_partners_is_refused_before_anything_is_written(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = toy_recipe(mixing={"cutmix": 1.0}, optim={"accumulate": 8})
    with pytest.raises(UsageError, match=r"parts of 1 clips, .* takes 2; .* or set mixing\.prob=0"):
        train(recipe, shards=toy_shards, out=tmp_path / "run", device="cpu", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mixing", "clips_per_sample", "accumulate", "world_size", "fits"),
    [
        ({"mixup": 0.8}, 1, 2, 2, True),
        ({"mixup": 0.8}, 1, 2, 4, False),
        ({"mixup": 0.8}, 2, 2, 1, True),
        ({"mixup": 0.8}, 2, 4, 1, False),
        ({"mixup": 0.8, "prob": 0.0}, 1, 8, 1, True),
        ({"erase": 1.0}, 1, 8, 1, True),
    ],
)
def test_what_has_a_partner(
    toy_recipe: MakeRecipe,
    mixing: dict[str, Any],
    clips_per_sample: int,
    accumulate: int,
    world_size: int,
    fits: bool,
) -> None:
    recipe = toy_recipe(mixing=mixing, data={"clips_per_sample": clips_per_sample}, optim={"accumulate": accumulate})
    if fits:
        check_parts(recipe, world_size=world_size)
    else:
        with pytest.raises(UsageError, match="mixing: "):
            check_parts(recipe, world_size=world_size)


def test_parts_that_would_be_refused_are_not_advised(toy_recipe: MakeRecipe) -> None:
    mixed, plain = toy_recipe(mixing={"mixup": 0.8}, optim={"accumulate": 4}), toy_recipe(optim={"accumulate": 4})
    assert "optim.accumulate=8" in step_advice(plain, world_size=1)
    assert "optim.accumulate" not in step_advice(mixed, world_size=1)
    several = toy_recipe(data={"batch_size": 24, "clips_per_sample": 4}, optim={"accumulate": 2})
    assert "optim.accumulate=3 " in step_advice(several, world_size=1)
