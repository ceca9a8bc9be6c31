"""`vidpipe prep` itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from vidpipe.bench.prep.arms.base import Done, PrepArm, Work
from vidpipe.datasets.base import Listing
from vidpipe.prep.plan import nominal_video_bytes
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.prep.run import PrepJob, prepare
from vidpipe.prep.shard_job import VideoDone

RECIPE = "folder"
SHARDS = "shards"
SHARDS_A_WORKER = 4  # so that no worker is without work early; a real data set has more


class VidpipePrep(PrepArm):
    """One clip of each video, to shards with index and manifest."""

    title: ClassVar[str] = "vidpipe prep"
    about: ClassVar[str] = (
        "vidpipe prep with the recipe `folder`: decoding, RGB, encoding, checksums, shards with fsync, index and manifest."
    )

    def run(self, report: Callable[[Done], None]) -> None:
        """The shards go to `SHARDS` in the scratch folder, `SHARDS_A_WORKER` for each worker."""
        recipe, _ = load_prep_recipe(RECIPE, self.setup.overrides)
        videos = sum(1 for path in self.setup.videos.rglob("*") if path.is_file())
        per_shard = math.ceil(videos / (self.setup.workers * SHARDS_A_WORKER))
        size = per_shard * nominal_video_bytes(recipe, recipe.clip_spec("train")) / 1e6
        recipe, options = load_prep_recipe(RECIPE, (*self.setup.overrides, f"shard_size_mb={size}"))
        job = PrepJob(
            name=RECIPE,
            recipe=recipe,
            options=options,
            source=self.setup.videos,
            out=self.setup.scratch / SHARDS,
            workers=self.setup.workers,
        )
        prepare(job, progress=_Told(report))

    @staticmethod
    def expected(work: Work) -> int:
        """One clip."""
        del work
        return 1

    @classmethod
    def given(cls, work: Work) -> int:
        """The clip's frames, repeated ones too."""
        return len(work.frame_indices)


class VidpipePrepWhole(VidpipePrep):
    """The same with a codec that stores whole videos."""

    @staticmethod
    def decoded(work: Work) -> int:
        """All frames."""
        return work.num_frames

    @classmethod
    def given(cls, work: Work) -> int:
        """All frames."""
        return work.num_frames


class _Told:
    """prep's progress, as the benchmark is told of it."""

    def __init__(self, report: Callable[[Done], None]) -> None:
        self._report = report

    def found(self, listing: Listing) -> None:
        """Nothing to tell."""

    def start(self, *, videos: int, done: int) -> None:
        """Nothing to tell."""

    def waiting(self, shards: int) -> None:
        """Nobody else works here."""

    def video(self, done: VideoDone) -> None:
        """One video is written or rejected."""
        error = f"{done.reject.reason}: {done.reject.message}" if done.reject else ""
        self._report(Done(done.path, done.clips, error))
