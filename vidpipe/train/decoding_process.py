"""What prediction's decoding child does: the clips of a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.train.stored_clips import StoredClips
from vidpipe.video.child import serve
from vidpipe.video.decode import Decoder, extract_clips

Clips = list[NDArray[np.uint8]]
"""The clips of a video, each uint8 [T, H, W, 3]."""


@dataclass(frozen=True, slots=True)
class Job:
    """One video to decode."""

    path: Path
    clips: StoredClips
    decoder: Decoder


def main(pipe_fd: int) -> None:
    """Answer jobs until the pipe closes.

    Args:
        pipe_fd: descriptor of the pipe to the parent.
    """
    serve(pipe_fd, _decode)


def _decode(job: Job) -> Clips:
    key = job.path.name
    plan = partial(job.clips.plan, key=key)
    extraction = extract_clips(job.path, job.clips.spec, key=key, decoder=job.decoder, plan=plan)
    return [clip.video for clip in extraction.clips]
