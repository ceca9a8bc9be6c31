"""vidpipe's loader with either backend."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

from vidpipe.bench.loader.arms.base import Arm, ArmBatch, ArmSetup, Batches, Job
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.loader.options import Backend
from vidpipe.shards.manifest import load_manifest

# An epoch has at least so many, so that its last batch, which may be short, counts as little as in real ones.
LONG_EPOCH_CLIPS = 400


class VidpipeArm(Arm):
    """`vidpipe.Loader` as a training loop would use it."""

    title: ClassVar[str] = "vidpipe"
    about: ClassVar[str] = 'vidpipe.Loader(augment="train"), all else as by default: CRC-32 checked.'
    jobs: ClassVar[frozenset[Job]] = frozenset({"train"})
    backend: ClassVar[Backend] = "auto"

    def batches(self, job: Job) -> Batches:
        """Epoch after epoch."""
        del job
        with open_loader(self.setup, long_epoch(self.setup.folder), backend=self.backend) as loader:
            while True:
                for batch in loader:
                    yield ArmBatch(batch.key, batch.video)


class VidpipeTorchArm(VidpipeArm):
    """The same with torch on the CPU."""

    title: ClassVar[str] = "vidpipe, torch"
    about: ClassVar[str] = 'vidpipe.Loader(augment="train", backend="torch"), all else as by default: CRC-32 checked.'
    backend: ClassVar[Backend] = "torch"


class VidpipeDaliArm(VidpipeArm):
    """The same with DALI on the CPU."""

    title: ClassVar[str] = "vidpipe, DALI"
    about: ClassVar[str] = 'vidpipe.Loader(augment="train", backend="dali") on the CPU, all else as by default.'
    backend: ClassVar[Backend] = "dali"

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Raises ImportError where DALI isn't installed."""
        import nvidia.dali

        del setup, nvidia
        return ""


class VidpipeReadArm(Arm):
    """The loader's reading alone, without any transform."""

    title: ClassVar[str] = "vidpipe"
    about: ClassVar[str] = (
        "vidpipe.Loader.read_batches(): clips in a new global order each epoch, read by `workers` threads into the batch, CRC-32 "
        "checked."
    )
    jobs: ClassVar[frozenset[Job]] = frozenset({"read"})
    check: ClassVar[Literal["crc", "off"]] = "crc"

    def batches(self, job: Job) -> Batches:
        """Epoch after epoch."""
        del job
        with open_loader(self.setup, long_epoch(self.setup.folder), backend="torch", check=self.check) as loader:
            while True:
                for batch in loader.read_batches():
                    yield ArmBatch(batch.key, batch.clips)


class VidpipeUncheckedReadArm(VidpipeReadArm):
    """The same without checksums."""

    title: ClassVar[str] = 'vidpipe, check="off"'
    about: ClassVar[str] = "The same without checksums."
    check: ClassVar[Literal["crc", "off"]] = "off"


def long_epoch(folder: Path, *, clips: int = LONG_EPOCH_CLIPS) -> list[Path]:
    """A split's folder as often as it takes for an epoch of so many clips, for `Loader`."""
    return [folder] * max(1, math.ceil(clips / load_manifest(folder).num_samples))


def open_loader(
    setup: ArmSetup, shards: Path | list[Path], *, backend: Backend, check: Literal["crc", "off"] = "crc"
) -> Loader:
    """The loader with the crops of the `train` job, for all stored clips."""
    options = LoaderOptions(
        window="center",
        epoch_unit="clip",
        check=check,
        crop_scale=setup.crop.scale,
        crop_ratio=setup.crop.ratio,
        horizontal_flip=setup.crop.flip,
        threads=setup.workers,
    )
    return Loader(
        shards,
        batch_size=setup.batch_size,
        frames=setup.frames,
        size=setup.size,
        augment="train",
        device=setup.device,
        backend=backend,
        seed=setup.seed,
        rank=0,
        world_size=1,
        options=options,
    )
