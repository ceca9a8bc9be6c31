"""Arms that cheat or can't run, for the tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidpipe.bench.loader.arms.base import Arm, ArmBatch, Batches, Job
from vidpipe.bench.loader.arms.vidpipe_loader import VidpipeReadArm, VidpipeTorchArm


class OneBit(VidpipeReadArm):
    """One bit of one frame differs."""

    def batches(self, job: Job) -> Batches:
        for batch in super().batches(job):
            video = [np.array(clip) for clip in batch.video]
            video[-1][0, 0, 0, 0] ^= 1
            yield ArmBatch(batch.keys, video)


class WrongKeys(VidpipeReadArm):
    """Clips under the keys of others."""

    def batches(self, job: Job) -> Batches:
        for batch in super().batches(job):
            yield ArmBatch([*batch.keys[1:], batch.keys[0]], batch.video)


class SameAgain(VidpipeReadArm):
    """Always the same batch, which would be fast."""

    def batches(self, job: Job) -> Batches:
        batch = next(super().batches(job))
        first = ArmBatch([batch.keys[0]], [batch.video[0]])
        while True:
            yield first


class Mirrored(VidpipeTorchArm):
    """Every clip is mirrored."""

    def batches(self, job: Job) -> Batches:
        for batch in super().batches(job):
            yield replace(batch, video=np.asarray(batch.video)[..., ::-1])


class Dies(VidpipeReadArm):
    """Its process ends in the middle."""

    def batches(self, job: Job) -> Batches:
        import os

        print("the last words", flush=True)
        os._exit(7)


class Uninstalled(Arm):
    """Needs a package that isn't there."""

    title = "uninstalled"

    @classmethod
    def objection(cls, setup: object) -> str:
        import a_package_that_nobody_has

        return str(a_package_that_nobody_has)

    def batches(self, job: Job) -> Batches:
        raise NotImplementedError
