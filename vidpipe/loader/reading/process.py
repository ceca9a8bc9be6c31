"""What a process does that reads for a loader: jobs come through a pipe, frames go to memory that both share.

A sample that it can't read, for whatever reason, is said to be so; its parent then reads it once more, and deals with what is
wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.reading.locations import SampleLocations
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.reading.shared_memory import mapped_memory, shared
from vidpipe.loader.reading.split_readers import SplitReaders
from vidpipe.shards.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """What is read, and how; see `Source` and `SplitReaders`.

    Attributes:
        folders, manifests: of the splits.
        max_open: shards of each split that are kept open.
    """

    places: SampleLocations
    split_of_shard: NDArray[np.int64]
    folders: tuple[Path, ...]
    manifests: tuple[Manifest, ...]
    check_crc: bool
    max_open: int
    join: bool


class Wanted(NamedTuple):
    """Some frames of a sample.

    Attributes:
        start, room: the bytes that they may take, from the job's offset on.
    """

    sample: int
    frames: Sequence[int]
    start: int
    room: int


class ReadJob(NamedTuple):
    """Samples to read.

    Attributes:
        offset: of the job's memory in the shared one.
        undecoded: names of the codecs whose samples are not to be decoded.
    """

    offset: int
    wanted: Sequence[Wanted]
    undecoded: frozenset[str]


class Placed(NamedTuple):
    """Where in the job's memory what was read lies; of decoded frames it needn't be said.

    Attributes:
        parts: start and size of each of `Stored.parts`.
        strips: start and size of each of `Stored.strips`, its frames and its pitch.
    """

    parts: Sequence[tuple[int, int]] = ()
    strips: Sequence[tuple[int, int, int, int]] = ()


class ReadAnswer(NamedTuple):
    """What came of a job.

    Attributes:
        placed: of each sample; None where it couldn't be read, or has no room.
        bytes_read: from the shards.
    """

    placed: Sequence[Placed | None]
    bytes_read: int


def main(pipe_fd: int, memory_fd: int, plan_fd: int) -> NoReturn:
    """Answer jobs until the pipe closes, as it does when the parent ends, whatever of.

    Unlike a child that decodes it asks for no signal then: that comes with the end of the thread that started it, and a loader may
    be made in one thread and used in others.

    Args:
        pipe_fd: descriptor of the pipe to the parent.
        memory_fd: of the shared memory.
        plan_fd: of a shared `ReadPlan`.
    """
    readers, memory = _open(shared(plan_fd)), mapped_memory(memory_fd)
    pipe: Connection[ReadAnswer, ReadJob] = Connection(pipe_fd)
    while True:
        try:
            job = pipe.recv()
            before = readers.bytes_read
            placed = [_read(readers, wanted, memory[job.offset :], job.undecoded) for wanted in job.wanted]
            pipe.send(ReadAnswer(placed, readers.bytes_read - before))
        except (EOFError, ConnectionError):
            os._exit(0)  # taking an interpreter apart takes ten times as long as ending, and the parent waits for it


def _open(plan: ReadPlan) -> SplitReaders:
    readers = [
        ClipReader(folder, manifest, plan.places, check_crc=plan.check_crc, max_open=plan.max_open)
        for folder, manifest in zip(plan.folders, plan.manifests, strict=True)
    ]
    codecs = [manifest.codec.name for manifest in plan.manifests]
    return SplitReaders(readers, plan.places, plan.split_of_shard, codecs, join=plan.join)


def _read(readers: SplitReaders, wanted: Wanted, memory: NDArray[np.uint8], undecoded: frozenset[str]) -> Placed | None:
    room = memory[wanted.start : wanted.start + wanted.room]
    try:
        if readers.codec_of(wanted.sample) not in undecoded:
            readers.read(wanted.sample, wanted.frames, room)
            return Placed()
        stored = readers.read_stored(wanted.sample, wanted.frames)
    except Exception:
        return None  # it is met again by the parent, who tells it
    contents = [*stored.parts, *(strip.content for strip in stored.strips)]
    if sum(content.nbytes for content in contents) > wanted.room:
        return None
    places, at = [], wanted.start
    for content in contents:
        memory[at : at + content.nbytes] = content
        places.append((at, content.nbytes))
        at += content.nbytes
    return Placed(
        places[: len(stored.parts)],
        [
            (*place, strip.frames, strip.pitch)
            for place, strip in zip(places[len(stored.parts) :], stored.strips, strict=True)
        ],
    )
