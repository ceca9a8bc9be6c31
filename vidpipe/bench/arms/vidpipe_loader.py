"""vidpipe's loader with either backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from vidpipe.bench.arm import Arm, ArmBatch, ArmSetup, Job
from vidpipe.loader import Loader, LoaderOptions


class VidpipeTorchArm(Arm):
    """`vidpipe.Loader` as a training loop would use it."""

    title: ClassVar[str] = "vidpipe, torch"
    about: ClassVar[str] = 'vidpipe.Loader(augment="train", backend="torch"), all else as by default: CRC-32 checked.'
    jobs: ClassVar[frozenset[Job]] = frozenset({"train"})
    backend: ClassVar[Literal["torch", "dali"]] = "torch"

    def batches(self, job: Job) -> Iterator[ArmBatch]:
        """Epoch after epoch."""
        del job
        setup = self.setup
        options = LoaderOptions(
            window="center",
            epoch_unit="clip",
            crop_scale=setup.crop.scale,
            crop_ratio=setup.crop.ratio,
            horizontal_flip=setup.crop.flip,
            threads=setup.workers,
        )
        with Loader(
            setup.folder,
            batch_size=setup.batch_size,
            size=setup.size,
            augment="train",
            backend=self.backend,
            seed=setup.seed,
            rank=0,
            world_size=1,
            options=options,
        ) as loader:
            while True:
                for batch in loader:
                    yield ArmBatch(batch.key, batch.video)


class VidpipeDaliArm(VidpipeTorchArm):
    """The same with DALI on the CPU."""

    title: ClassVar[str] = "vidpipe, DALI"
    about: ClassVar[str] = 'vidpipe.Loader(augment="train", backend="dali") on the CPU, all else as by default.'
    backend: ClassVar[Literal["torch", "dali"]] = "dali"

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Raises ImportError where DALI isn't installed."""
        import nvidia.dali

        del setup, nvidia
        return ""
