from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

import pytest


@pytest.fixture(params=["torch", "dali"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that the machine has."""
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    return str(request.param)


@pytest.fixture
def requests(bucket: str, caplog: pytest.LogCaptureFixture) -> Any:
    """How often each file of this test's bucket was asked of the server so far; another's reads may not have ended yet."""
    name = bucket.removeprefix("s3://").partition("/")[0]
    caplog.set_level(logging.INFO, "werkzeug")

    def count() -> Counter[str]:
        lines = (re.search(rf"GET /{name}/(?:\S+/)?(\S+?)[? ]", record.getMessage()) for record in caplog.records)
        return Counter(line.group(1) for line in lines if line)

    return count
