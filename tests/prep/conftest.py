from __future__ import annotations

from pathlib import Path

import pytest

from prep import interrupted_runs


@pytest.fixture(scope="session")
def uninterrupted(motion_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that `interrupted_runs.command` makes when nobody disturbs it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert interrupted_runs.run(interrupted_runs.command(motion_shards / "videos", out)).returncode == 0
    files = interrupted_runs.files(out)
    assert len([name for name in files if name.endswith(".tar")]) >= 8
    return files
