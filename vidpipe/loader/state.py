"""What a loader's state says beside its place: on which data, in which order and as which clips it can go on."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from vidpipe.errors import UsageError
from vidpipe.loader.batch import LoaderOptions

VERSION = 1
# Options that change neither which clips come nor what they look like. A new option counts as one that does.
_NEUTRAL = (
    "cache_dir",
    "cache_gb",
    "check",
    "decode",
    "max_bad",
    "on_bad",
    "prefetch_batches",
    "shuffle_window",
    "threads",
)


def content_of_options(options: LoaderOptions) -> dict[str, Any]:
    """The options that decide which clips come and what they look like, as JSON."""
    chosen = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NEUTRAL}
    content: dict[str, Any] = json.loads(json.dumps(chosen))
    return content


def check_state(state: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse the state of a loader that gives other clips.

    Args:
        ours: a state of the loader that is to go on.

    Raises:
        UsageError: it is of another version, or differs in anything but its place; the message names all that differs.
    """
    if state.get("version") != VERSION or not {"epoch", "consumed", "content"} <= state.keys():
        raise UsageError(f"loader state: version {state.get('version')!r}, expected {VERSION}; begin the epoch anew")
    theirs, wanted = state["content"], ours["content"]
    different = [name for name in wanted if theirs.get(name) != wanted[name]]
    if different or theirs.keys() != wanted.keys():
        listed = ", ".join(f"{name} {theirs.get(name)!r} (this loader's is {wanted[name]!r})" for name in different)
        raise UsageError(
            f"loader state: is of a loader with {listed or 'other options'}: a loader can only go on with the clips and the "
            "order that it began with"
        )
