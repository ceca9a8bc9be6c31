"""What every arm of the loader benchmark does. An arm is one way to get batches of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Job = Literal["read", "train"]
JOBS: tuple[Job, ...] = ("read", "train")


@dataclass(frozen=True, slots=True)
class Crop:
    """The random resized crop and flip of the `train` job.

    Attributes:
        scale: range of the crop's share of the area.
        ratio: range of its width to height.
        flip: mirror half of the clips.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool


RANDOM_CROP = Crop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=True)
# A square of the whole area never fits a frame that is not square, and all implementations then take the largest centred
# one: the code that is timed can so be compared clip by clip, without its randomness.
CENTER_CROP = Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSetup:
    """What an arm is given.

    Attributes:
        folder: of the split's shards.
        source: folder of the videos that they were made from, if it is known.
        batch_size: clips a batch.
        workers: processes or threads that the arm may use.
        size: side in pixels of what the `train` job gives.
        crop: of the `train` job.
        scratch: an empty folder for what the arm makes of the clips before anything is timed.
        frames: that are taken of each stored clip, from its middle; None takes what the manifest says.
        device: where batches are wanted of arms that can give them there: `cpu` or `cuda`.
        seed: of order and augmentation.
    """

    folder: Path
    source: Path | None
    scratch: Path
    batch_size: int
    workers: int
    size: int
    crop: Crop
    frames: int | None = None
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ArmBatch:
    """One batch, in memory that nobody else writes to while it is held.

    Attributes:
        keys: of the samples.
        video: `read`: for each clip uint8 [T, H, W, 3]; `train`: float32 [B, 3, T, size, size], normalised.
    """

    keys: Sequence[str]
    video: Sequence[NDArray[np.uint8]] | NDArray[np.float32] | Tensor


Batches = Generator[ArmBatch, None, None]
"""Batches without end; closing it ends all that it has started."""


class Arm(ABC):
    """One way to get batches. To add one: a file with a subclass, and its row in `arms.ARMS`.

    It lives in a process of its own, where it may start workers. Packages that not everyone has are imported by its
    module or by `objection`: an ImportError there leaves the arm out, with the reason in the report.

    Attributes:
        title: its name in tables.
        about: what it does, in one sentence.
        jobs: those that it can do.
        decodes_anew: another library decodes its frames, or they were compressed anew: they may differ by rounding.
        from_videos: they come from the videos and not from the shards, so what the shards' codec loses differs too.
    """

    title: ClassVar[str]
    about: ClassVar[str]
    jobs: ClassVar[frozenset[Job]] = frozenset(JOBS)
    decodes_anew: ClassVar[bool] = False
    from_videos: ClassVar[bool] = False

    def __init__(self, setup: ArmSetup) -> None:
        self.setup = setup

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Why this arm can't be used with these shards; empty when it can."""
        del setup
        return ""

    def prepare(self) -> None:  # noqa: B027  most arms have nothing to prepare
        """Convert the clips to the arm's own format, in `setup.scratch`; is done once, before anything is timed."""

    @abstractmethod
    def batches(self, job: Job) -> Batches:
        """The clips, again and again."""
