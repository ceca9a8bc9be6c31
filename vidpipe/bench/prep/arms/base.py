"""What every arm of the prep benchmark does. An arm is one way to go through a folder of videos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One video, and what prep takes of it.

    Attributes:
        path: relative to the folder of all videos.
        frame_indices: of the clip, in the order of presentation; those of a padded clip are repeated.
        width, height: of the clip in pixels.
        num_frames: of the video.
        stream_index: of the video stream among the container's.
    """

    path: str
    frame_indices: tuple[int, ...]
    width: int
    height: int
    num_frames: int
    stream_index: int

    @property
    def wanted(self) -> list[int]:
        """The distinct frames of the clip, ascending."""
        return sorted(set(self.frame_indices))

    @property
    def needed(self) -> int:
        """Frames of the video up to the clip's last one."""
        return self.frame_indices[-1] + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepArmSetup:
    """What an arm is given.

    Attributes:
        videos: folder with a class folder of videos.
        scratch: empty folder, which the arm may fill.
        works: the videos; empty when prep is to say what it makes of them.
        workers: decoding processes.
        overrides: of the recipe `folder`, for prep itself.
    """

    videos: Path
    scratch: Path
    works: tuple[Work, ...]
    workers: int
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one video.

    Attributes:
        count: frames, or for prep itself clips, that were given.
        error: why there are none; empty when all went well.
    """

    path: str
    count: int
    error: str = ""


class PrepArm(ABC):
    """One way to go through all videos, `workers` at a time, each in one thread. It lives in a process of its own.

    Attributes:
        title: its name in tables.
        about: what it does, in one sentence.
    """

    title: ClassVar[str]
    about: ClassVar[str]

    def __init__(self, setup: PrepArmSetup) -> None:
        self.setup = setup

    @abstractmethod
    def run(self, report: Callable[[Done], None]) -> None:
        """Go through all videos; `report` each as soon as it is done."""

    @staticmethod
    @abstractmethod
    def expected(work: Work) -> int:
        """The count that `Done` has to have."""

    @staticmethod
    def decoded(work: Work) -> int | None:
        """Frames of the source that have to be decoded, from its first one on; None where the arm leaves some out."""
        del work
        return None

    @classmethod
    def given(cls, work: Work) -> int:
        """Frames that come out."""
        return cls.expected(work)
