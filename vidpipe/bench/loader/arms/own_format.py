"""What arms with a storage format of their own share: the size of its files, and an epoch that is long enough."""

from __future__ import annotations

import math

CHUNK_BYTES = 64 << 20  # the size of chunk that both LitData and MosaicML Streaming take by default
# An epoch has at least so many: the clips are repeated within it, since beginning a new one costs these arms much.
EPOCH_CLIPS = 50_000


def repeats(num_clips: int) -> int:
    """How often each clip occurs in an epoch."""
    return math.ceil(EPOCH_CLIPS / num_clips)
