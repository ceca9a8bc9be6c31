"""GPU tests skip without a CUDA device, or fail instead when VIDPIPE_REQUIRE_GPU=1.

VIDPIPE_REHEARSE_GPU=1 runs their bodies on the CPU, as far as they have any meaning there.
"""

from __future__ import annotations

import os

import pytest
import torch


def _unavailable(message: str) -> None:
    if os.environ.get("VIDPIPE_REQUIRE_GPU") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def cuda() -> torch.device:
    """The first CUDA device, or the CPU in a rehearsal."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if os.environ.get("VIDPIPE_REHEARSE_GPU") != "1":
        _unavailable("no CUDA device here")
    return torch.device("cpu")


@pytest.fixture
def true_cuda(cuda: torch.device) -> torch.device:
    """The first CUDA device; what needs it can't be rehearsed."""
    if cuda.type != "cuda":
        _unavailable("no CUDA device here, and nothing to rehearse on the CPU")
    return cuda
