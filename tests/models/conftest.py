"""Fixtures of the model tests."""

from __future__ import annotations

import pytest
import torch
from models.narrow import narrow_model

from vidpipe.models import MODELS
from vidpipe.models.base import VideoModel


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `model_name` runs for every model."""
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", sorted(MODELS))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model(model_name: str) -> VideoModel:
    return narrow_model(model_name)
