"""DALI's own WebDataset reader on the same shards, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, math, pipeline_def, types
from torch.utils.dlpack import from_dlpack

from vidpipe.bench.arm import CENTER_CROP, Arm, ArmBatch, ArmSetup, Job
from vidpipe.bench.clips import StoredClips
from vidpipe.shards.layout import index_name


class DaliReaderArm(Arm):
    """fn.readers.webdataset, fn.decoders.numpy, fn.random_resized_crop, fn.crop_mirror_normalize."""

    title: ClassVar[str] = "DALI fn.readers.webdataset"
    about: ClassVar[str] = (
        "fn.readers.webdataset and fn.decoders.numpy on the CPU, not shuffled (which favours it); "
        "train: fn.random_resized_crop and fn.crop_mirror_normalize."
    )

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Only clips that are stored as arrays."""
        codec = StoredClips(setup.folder).manifest.codec.name
        return "" if codec == "tensor" else f"reads the codec tensor, these shards have {codec}"

    def batches(self, job: Job) -> Iterator[ArmBatch]:
        """In the order of the shards, without end; the reader gives no keys, so they are counted along."""
        stored = StoredClips(self.setup.folder)
        keys = [clip.key for clip in stored.clips]
        paths = [str(stored.folder / entry.name) for entry in stored.manifest.shards]
        pipeline = _pipeline(
            paths=paths,
            index_paths=[index_name(path) for path in paths],
            setup=self.setup,
            job=job,
            mean=[255 * value for value in stored.manifest.normalization.mean],
            std=[255 * value for value in stored.manifest.normalization.std],
            batch_size=self.setup.batch_size,
            num_threads=self.setup.workers,
            device_id=None,
            exec_dynamic=True,
            seed=self.setup.seed,
        )
        pipeline.build()
        place = 0
        while True:
            (output,) = pipeline.run()
            size = len(output)
            batch = [keys[(place + i) % len(keys)] for i in range(size)]
            place += size
            if job == "train":
                yield ArmBatch(batch, from_dlpack(output.as_tensor()))
            else:
                views = [cast("NDArray[np.uint8]", np.from_dlpack(output[i])) for i in range(size)]
                yield ArmBatch(batch, views)


@pipeline_def  # type: ignore[untyped-decorator]
def _pipeline(
    *, paths: list[str], index_paths: list[str], setup: ArmSetup, job: Job, mean: list[float], std: list[float]
) -> Any:
    payload = fn.readers.webdataset(
        paths=paths, index_paths=index_paths, ext=["npy"], missing_component_behavior="error"
    )
    video = fn.decoders.numpy(payload)
    if job == "read":
        return video
    video = fn.reshape(video, layout="FHWC")
    resized = fn.random_resized_crop(
        _centred_square(video) if setup.crop == CENTER_CROP else video,
        size=[setup.size, setup.size],
        random_area=list(setup.crop.scale),
        random_aspect_ratio=list(setup.crop.ratio),
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    mirror = fn.random.coin_flip(probability=0.5) if setup.crop.flip else 0
    return fn.crop_mirror_normalize(resized, dtype=types.FLOAT, output_layout="CFHW", mean=mean, std=std, mirror=mirror)


def _centred_square(video: Any) -> Any:
    """For the proof: where no crop fits, DALI takes the largest square anywhere and not about the centre."""
    shape = video.shape()
    side = fn.cast(math.min(shape[1], shape[2]), dtype=types.FLOAT)
    return fn.crop(video, crop_h=side, crop_w=side, rounding="truncate")
