from __future__ import annotations

from pathlib import Path

import pytest
from generated_video import H264, write_video


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small videos, of 40 and 50 frames, and one that is cut short."""
    folder = tmp_path_factory.mktemp("small")
    for name, seconds in (("a.mp4", 1.6), ("b.mp4", 2.0), ("cut.mp4", 2.0)):
        write_video(folder / name, f"testsrc2=size=64x48:rate=25:duration={seconds}", *H264, "-movflags", "+faststart")
    cut = folder / "cut.mp4"
    cut.write_bytes(cut.read_bytes()[:3000])
    return folder
