"""What stands in shards for the path of a video."""

from __future__ import annotations

import re
from itertools import product

import pytest

from vidpipe.prep.parts import printable


def _path(text: str) -> str:
    """The inverse, as shards/README.md states it."""
    escape = rb"\\(?:\\|x([0-9a-f]{2}))"
    raw = re.sub(escape, lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", text.encode())
    return raw.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a/чай 'x'\n.mp4", "a/чай 'x'\n.mp4"),
        (r"back\slash\xyz.mp4", r"back\slash\xyz.mp4"),
        ("x\udce9.mp4", r"x\xe9.mp4"),
        (r"x\xe9.mp4", r"x\\xe9.mp4"),
        ("a\\b\udce9.mp4", r"a\\b\xe9.mp4"),
        (r"a\\b.mp4", r"a\\\\b.mp4"),
    ],
)
def test_paths_are_text_that_tells_which_bytes_they_were(path: str, text: str) -> None:
    assert printable(path) == text
    assert _path(text) == path


def test_no_two_paths_have_the_same_text() -> None:
    paths = {"".join(parts) for length in range(7) for parts in product(("\\", "\udce9", "x", "e9"), repeat=length)}
    assert {_path(printable(path)) for path in paths} == paths
    assert all(printable(path).isascii() for path in paths)
