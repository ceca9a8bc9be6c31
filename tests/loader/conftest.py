from __future__ import annotations

import pytest


@pytest.fixture(params=["torch", "dali"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that the machine has."""
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    return str(request.param)
