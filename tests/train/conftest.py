"""Fixtures of the training tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.toy import MakeRecipe, make_toy_recipe, make_toy_shards


@pytest.fixture(scope="session")
def toy_shards(tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]) -> Path:
    """A data-set folder: 26 videos to train on, 8 videos with 2 clips each to evaluate."""
    return make_toy_shards(tmp_path_factory.mktemp("toy"), session_command)


@pytest.fixture(scope="session")
def toy_recipe() -> MakeRecipe:
    """Makes the toy recipe, with sections updated: `toy_recipe(optim={"lr": 1.0})`."""
    return make_toy_recipe
