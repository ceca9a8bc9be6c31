from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from video.numbered import MakeVideo, make_video


@pytest.fixture
def ffmpeg_video(tmp_path: Path) -> MakeVideo:
    """Makes a video of numbered frames in the test's folder."""

    def make(
        name: str,
        *encoding: str,
        frames: int = 40,
        fps: int = 25,
        picture: NDArray[np.uint8] | None = None,
        before_output: Sequence[str] = (),
    ) -> Path:
        return make_video(
            tmp_path / name, *encoding, frames=frames, fps=fps, picture=picture, before_output=before_output
        )

    return make
