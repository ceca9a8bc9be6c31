"""The child that decodes videos for prediction, one after the other, until its pipe closes or it is killed.

It is a process of its own because decoders hang and crash on damaged files; whoever started it keeps the time.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.spec import ClipSpec

READY: Literal["ready"] = "ready"
Clips = list[NDArray[np.uint8]]
"""The clips of a video, each uint8 [T, H, W, 3]."""


@dataclass(frozen=True, slots=True)
class Job:
    """One video to decode."""

    path: Path
    spec: ClipSpec
    decoder: Decoder


Answer = Clips | VidpipeError | Literal["ready"]


def main(pipe_fd: int) -> None:
    """Answer jobs until the pipe closes.

    Args:
        pipe_fd: descriptor of the pipe to the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # end with the parent, whatever it dies of
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: Connection[Answer, Job] = Connection(pipe_fd)
    pipe.send(READY)
    while True:
        try:
            job = pipe.recv()
            pipe.send(_decode(job))
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return


def _decode(job: Job) -> Clips | VidpipeError:
    try:
        extraction = extract_clips(job.path, job.spec, key=job.path.name, decoder=job.decoder)
    except VideoError as error:
        return error
    except VidpipeError as error:
        return error
    return [clip.video for clip in extraction.clips]
