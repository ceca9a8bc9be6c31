from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., Path]:
    """Makes empty files below a source folder, and returns that folder; scanning opens no video."""

    def make(*paths: str) -> Path:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).touch()
        return source

    return make
