"""What a loader's state says beside its place: on which data, in which order and as which clips it can go on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from vidpipe.errors import UsageError
from vidpipe.loader.checks import check_whole
from vidpipe.loader.options import Augment, LoaderOptions
from vidpipe.loader.reading.source import Source
from vidpipe.loader.sampling.window import SEGMENTS, FrameWindow

VERSION = 3
# Options that change neither which clips come nor what they look like. A new option counts as one that does.
_NEUTRAL = (
    "cache_dir",
    "cache_gb",
    "check",
    "decode",
    "max_bad",
    "on_bad",
    "prefetch_across_epochs",
    "prefetch_batches",
    "readers",
    "shuffle_window",
    "threads",
)


def content_of(
    options: LoaderOptions,
    source: Source,
    windows: Sequence[FrameWindow],
    *,
    seed: int,
    size: int,
    augment: Augment | None,
) -> dict[str, Any]:
    """All that decides which clips come, in which order, what they look like and what their labels mean, as JSON."""
    manifest = source.manifest
    allowed = manifest.horizontal_flip if options.horizontal_flip is None else options.horizontal_flip
    names = [field.name for field in dataclasses.fields(options) if field.name not in _NEUTRAL]
    chosen = {name: getattr(options, name) for name in names}
    shuffle = "global" if source.shard_window is None else f"windows of {source.shard_window} shards"
    chosen |= {"shards": source.identity, "weights": source.weights or (), "shuffle": shuffle, "seed": seed}
    chosen |= {"frames": windows[0].frames, "frame_step": [window.spacing for window in windows]}
    chosen |= {"normalization": manifest.normalization.model_dump(), "classes": fingerprint(manifest.classes)}
    chosen |= {"horizontal_flip": allowed and augment is not None}
    chosen |= {"size": size, "augment": augment}
    content: dict[str, Any] = json.loads(json.dumps(chosen, default=BaseModel.model_dump))
    return content


def fingerprint(names: Sequence[str]) -> str:
    """What tells some names, in their order, from others."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]


def check_state(state: dict[str, Any], ours: dict[str, Any], *, num_samples: int) -> None:
    """Refuse the state of a loader that gives other clips, or one that names no place in an epoch.

    Args:
        ours: a state of the loader that is to go on.
        num_samples: of an epoch.

    Raises:
        UsageError: it is of another version, or differs in anything but its place; the message names all that differs. Or it
            has no place.
    """
    if not isinstance(state, dict):
        raise UsageError(f"loader state: got {state!r:.100}, expected what state_dict() gave")
    if state.get("version") not in (2, VERSION):
        raise UsageError(f"loader state: version {state.get('version')!r}, expected {VERSION}; begin the epoch anew")
    if missing := [name for name in ("epoch", "consumed", "content") if name not in state]:
        raise UsageError(f"loader state: lacks {', '.join(missing)}, expected what state_dict() gave")
    if not isinstance(state["content"], dict):
        raise UsageError(f"loader state: content: got {state['content']!r:.100}, expected what state_dict() gave")
    theirs, wanted = state["content"], ours["content"]
    if state["version"] == 2:
        theirs = _renewed(theirs, wanted)
    different = [name for name in wanted if theirs.get(name) != wanted[name]]
    if different or theirs.keys() != wanted.keys():
        listed = ", ".join(f"{name} {theirs.get(name)!r} (this loader's is {wanted[name]!r})" for name in different)
        raise UsageError(
            f"loader state: is of a loader with {listed or 'other options'}: a loader can only go on with the clips and the "
            "order that it began with"
        )
    check_whole("loader state: epoch", state["epoch"], 0)
    check_whole("loader state: consumed", state["consumed"], 0)
    if state["consumed"] > num_samples:
        raise UsageError(f"loader state: consumed: got {state['consumed']}, but an epoch has {num_samples} samples")


def _renewed(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A content of version 2, as it would be said today: in it evenly spread frames were 1 apart, and crops had ranges also where none
    was made.
    """
    renewed = dict(theirs)
    if theirs.get("frame_step") == _without_segments(ours["frame_step"]):
        renewed["frame_step"] = ours["frame_step"]
    if theirs.get("augment") is None:
        renewed |= {name: ours[name] for name in ("crop_scale", "crop_ratio") if name in ours}
    return renewed


def _without_segments(step: Any) -> Any:
    return [_without_segments(one) for one in step] if isinstance(step, list) else 1 if step == SEGMENTS else step
