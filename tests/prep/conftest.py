from __future__ import annotations

from pathlib import Path

import pytest
from prep.interrupted_runs import Run, Whole, command


@pytest.fixture(scope="session")
def uninterrupted(motion_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What `interrupted_runs.command` makes when nobody disturbs it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    whole = Run(command(motion_shards / "videos", out, "--workers", "2"), out).whole()
    assert len([name for name in whole.files if name.endswith(".tar")]) >= 8
    return whole
