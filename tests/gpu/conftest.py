"""GPU tests skip without a CUDA device, or fail instead when VIDPIPE_REQUIRE_GPU=1."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def cuda() -> torch.device:
    """The first CUDA device."""
    if not torch.cuda.is_available():
        message = "no CUDA device here"
        if os.environ.get("VIDPIPE_REQUIRE_GPU") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return torch.device("cuda", 0)
