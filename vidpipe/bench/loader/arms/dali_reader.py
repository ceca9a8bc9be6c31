"""DALI's own WebDataset reader, on the CPU: on the same shards, and on filmstrips."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, math, pipeline_def, types
from torch.utils.dlpack import from_dlpack

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import CENTER_CROP, Arm, ArmBatch, Batches, Job
from vidpipe.shards.layout import index_name


class DaliReaderArm(Arm):
    """fn.readers.webdataset, some decoder, fn.random_resized_crop, fn.crop_mirror_normalize."""

    title: ClassVar[str] = "DALI fn.readers.webdataset"

    @abstractmethod
    def extensions(self, stored: StoredClips) -> list[str]:
        """The files of a sample that are read."""

    @abstractmethod
    def video(self, files: list[Any], stored: StoredClips) -> Any:
        """The graph from those files to frames, uint8 [T, H, W, 3]."""

    def shards(self, stored: StoredClips) -> list[str]:
        """The archives that are read, with an index beside each, in the order of the clips."""
        return [str(stored.folder / shard) for shard in stored.shards]

    def batches(self, job: Job) -> Batches:
        """In the order of the shards, without end; the reader gives no keys, so they are counted along."""
        stored = StoredClips(self.setup.folder, frames=self.setup.frames)
        keys = [clip.key for clip in stored.clips]
        pipeline = _pipeline(
            arm=self,
            stored=stored,
            job=job,
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


class DaliArrayArm(DaliReaderArm):
    """Arrays by fn.decoders.numpy."""

    about: ClassVar[str] = (
        "fn.readers.webdataset and fn.decoders.numpy on the CPU, not shuffled (which favours it); "
        "train: fn.random_resized_crop and fn.crop_mirror_normalize."
    )

    def extensions(self, stored: StoredClips) -> list[str]:
        """One file."""
        del stored
        return ["npy"]

    def video(self, files: list[Any], stored: StoredClips) -> Any:
        """The array, or some of its frames."""
        return some_frames(fn.decoders.numpy(files[0]), stored)


class DaliJpegArm(DaliReaderArm):
    """One JPEG file a frame by fn.decoders.image."""

    title: ClassVar[str] = "DALI, JPEG frames"
    about: ClassVar[str] = (
        "fn.readers.webdataset and fn.decoders.image on the CPU on the same shards, not shuffled (which favours it); "
        "train: fn.random_resized_crop and fn.crop_mirror_normalize."
    )
    decodes_anew: ClassVar[bool] = True  # by a libjpeg of its own

    def extensions(self, stored: StoredClips) -> list[str]:
        """Only the wanted frames."""
        return [f"{frame:04d}.jpg" for frame in stored.window(stored.clips[0])]

    def video(self, files: list[Any], stored: StoredClips) -> Any:
        """Stacked."""
        del stored
        return fn.stack(*(fn.decoders.image(file, output_type=types.RGB) for file in files))


def some_frames(video: Any, stored: StoredClips) -> Any:
    """The wanted ones of all frames; they are evenly spaced."""
    window, held = stored.window(stored.clips[0]), stored.clips[0].frames
    if len(window) == held:
        return video
    step = window[1] - window[0] if len(window) > 1 else 1
    return video[window[0] : window[-1] + 1 : step]


@pipeline_def  # type: ignore[untyped-decorator]
def _pipeline(*, arm: DaliReaderArm, stored: StoredClips, job: Job) -> Any:
    setup = arm.setup
    shards = arm.shards(stored)
    files = fn.readers.webdataset(
        paths=shards,
        index_paths=[index_name(path) for path in shards],
        ext=arm.extensions(stored),
        missing_component_behavior="error",
    )
    video = arm.video(list(files) if isinstance(files, list | tuple) else [files], stored)
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
    normalization = stored.manifest.normalization
    mean, std = ([255 * value for value in values] for values in (normalization.mean, normalization.std))
    return fn.crop_mirror_normalize(resized, dtype=types.FLOAT, output_layout="CFHW", mean=mean, std=std, mirror=mirror)


def _centred_square(video: Any) -> Any:
    """For the proof: where no crop fits, DALI takes the largest square anywhere and not about the centre."""
    shape = video.shape()
    side = fn.cast(math.min(shape[1], shape[2]), dtype=types.FLOAT)
    return fn.crop(video, crop_h=side, crop_w=side, rounding="truncate")
