"""What a loader gives (Batch), how it is set up beyond the usual (LoaderOptions), and what it measures (LoaderStats)."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.errors import UsageError
from vidpipe.loader.affine import Affine
from vidpipe.loader.color import ColorJitter

Augment = Literal["train"]
Backend = Literal["auto", "dali", "torch"]
Decode = Literal["auto", "cpu", "gpu"]
Dtype = Literal["float32", "float16", "bfloat16"]
Window = Literal["random", "center"] | int


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    Attributes:
        video: [B, C, T, H, W] of the loader's dtype, normalised with the manifest's mean and std.
        label: int64 [B]; -1 where the data set has no label.
        key: the samples' keys.
        video_path: path of each sample's source video, relative to the data set's root.
        is_padding: bool [B]; True for samples that are repeated so that all ranks take the same number of steps, and for
            those that stand in for damaged ones. Metrics leave them out.
        view: int64 [B]; with `LoaderOptions.views` (T, S) which of its video's, t * S + s; with `clips_per_sample` which of its
            sample's; else 0.
        dataset: int64 [B]; which of the loader's data sets each clip is of, by its place among them.
    """

    video: Tensor
    label: Tensor
    key: list[str]
    video_path: list[str]
    is_padding: Tensor
    view: Tensor
    dataset: Tensor

    @property
    def clip_key(self) -> list[str]:
        """Names for what is drawn clip by clip: a sample's key, with a number from its second clip in the batch on."""
        seen: Counter[str] = Counter()
        names = []
        for key in self.key:
            names.append(f"{key}/{seen[key]}" if seen[key] else key)
            seen[key] += 1
        return names

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Clips as they are stored, without any transform.

    Attributes:
        clips: uint8 [T, H, W, 3], RGB, one after the other in one buffer that isn't written to again.
        label, key, video_path, is_padding, view, dataset: as in `Batch`; the arrays are numpy's.
    """

    clips: list[NDArray[np.uint8]]
    label: NDArray[np.int64]
    key: list[str]
    video_path: list[str]
    is_padding: NDArray[np.bool_]
    view: NDArray[np.int64]
    dataset: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def video(self) -> NDArray[np.uint8]:
        """uint8 [B, T, H, W, 3], the clips' own memory; a copy where a read gave several clips.

        Raises:
            UsageError: they aren't all of one size, as they are where prep was given a `--crop`.
        """
        first = self.clips[0]
        if any(clip.shape != first.shape for clip in self.clips):
            sizes = sorted({f"{clip.shape[2]}x{clip.shape[1]}" for clip in self.clips})
            raise UsageError(f"clips of {', '.join(sizes)} in one batch: use its `clips`, or prepare with --crop WxH")
        starts = np.array([clip.ctypes.data for clip in self.clips])
        step = int(starts[1] - starts[0]) if len(starts) > 1 else first.nbytes
        if (np.diff(starts) != step).any() or any(clip.strides != first.strides for clip in self.clips):
            return np.stack(self.clips)  # several windows of one read
        return np.lib.stride_tricks.as_strided(first, (len(starts), *first.shape), (step, *first.strides))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """Settings that few have to touch.

    Attributes:
        window: where in the stored clip the frames are taken: `random`, `center`, or a first frame. By default random with
            augmentation and centred without.
        epoch_unit: `video` takes one clip of each video an epoch, `clip` takes all clips.
        check: `crc` verifies the checksum of all that is read, `off` trades that for speed.
        on_bad: `raise` stops at a damaged sample; `skip` logs it and puts another one in its place, marked in `is_padding`. A
            shard that can't be opened counts as so many damaged samples.
        max_bad: share of all samples that may be damaged (one always may) before `skip` stops too.
        crop_scale: range of the random crop's share of the area.
        crop_ratio: range of its width to height.
        horizontal_flip: mirror half of the clips; by default what the manifest allows. Only with augmentation.
        threads: that read and, on the CPU, transform; by default one for each core that this process may use, 16 at most.
        prefetch_batches: that are prepared ahead of the one in use.
        views: (T, S): every video gives T windows, evenly over what is stored of it, times S square crops, evenly along the
            longer side. Each view is an entry of the batches, marked in `Batch.view`. Only without augmentation.
        clips_per_sample: K windows, each with an augmentation of its own, of one read; they stand together in a batch.
            Batches are counted in clips, so that their size has to be a multiple of K; epochs in samples. Only with
            augmentation.
        color_jitter: change of colours; None for none. Only with augmentation.
        affine: rotation, shear, translation and scaling; None for none. Only with augmentation.
        where: take only samples for which this condition on the columns of samples.parquet holds, such as
            "label_name in ('a', 'b') and duration_seconds > 2" (see `matching_rows`).
        balance: `class` draws every class equally often, over data sets or, if these are weighted, within each.
        shuffle: `global` permutes all samples; `windowed` permutes the shards, and the samples within windows of some shards:
            for storage with slow seeks, and the default for data sets that any part of is remote.
        shuffle_window: shards in a window.
        decode: where `jpeg` and `mp4` become frames: `gpu` (nvJPEG and NVDEC, by backend DALI), `cpu` (the threads that read),
            or `auto`, the GPU where DALI makes batches on one and its decoders prove able to.
        cache_dir: where shards of remote data sets are kept; $VIDPIPE_CACHE or ~/.cache/vidpipe by default.
        cache_gb: bound of all shards there together, in 10^9 bytes.
    """

    window: Window | None = None
    epoch_unit: Literal["video", "clip"] = "video"
    check: Literal["crc", "off"] = "crc"
    on_bad: Literal["raise", "skip"] = "raise"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool | None = None
    threads: int | None = None
    prefetch_batches: int = 2
    views: tuple[int, int] | None = None
    clips_per_sample: int = 1
    color_jitter: ColorJitter | None = None
    affine: Affine | None = None
    max_bad: float = 0.05
    where: str | None = None
    balance: Literal["class"] | None = None
    shuffle: Literal["global", "windowed"] | None = None
    shuffle_window: int = 8
    decode: Decode = "auto"
    cache_dir: str | os.PathLike[str] | None = None
    cache_gb: float = 100.0

    def __post_init__(self) -> None:
        for name, least in (("shuffle_window", 1), ("prefetch_batches", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}: got {value}, expected at least {least}")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"max_bad: got {self.max_bad}, expected a share from 0 to 1")
        if self.cache_gb <= 0:
            raise UsageError(f"cache_gb: got {self.cache_gb}, expected more than 0")


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has measured since it was made.

    Attributes:
        clips: given to the consumer.
        bytes_read: from the shards, as they are stored.
        wait_seconds: that the consumer spent waiting for a batch.
        busy_seconds: that the consumer spent between batches.
        bad_samples: that are known to be damaged, with all those of a shard that can't be opened.
    """

    clips: int
    bytes_read: int
    wait_seconds: float
    busy_seconds: float
    bad_samples: int

    @property
    def clips_per_second(self) -> float:
        """Clips by the time that the consumer waited and worked."""
        total = self.wait_seconds + self.busy_seconds
        return self.clips / total if total else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes read by the same time."""
        total = self.wait_seconds + self.busy_seconds
        return self.bytes_read / total if total else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time that the consumer waited, 0 to 1."""
        total = self.wait_seconds + self.busy_seconds
        return self.wait_seconds / total if total else 0.0
