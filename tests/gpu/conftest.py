"""GPU tests skip without a CUDA device, or fail instead when VIDPIPE_REQUIRE_GPU=1.

VIDPIPE_REHEARSE_GPU=1 runs their bodies on the CPU, as far as they have any meaning there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="session")
def codec_shards(
    motion_shards: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> dict[str, Path]:
    """The videos of `motion_shards` with every codec."""
    folders = {"tensor": motion_shards}
    for codec in ("jpeg", "mp4"):
        folders[codec] = tmp_path_factory.mktemp(codec) / "shards"
        videos = ("--source", motion_shards / "videos", "--set", "train_videos=4", "--set", "val_videos=2")
        assert session_command("prep", "motion", *videos, "--codec", codec, "--out", folders[codec]) == 0
    return folders
