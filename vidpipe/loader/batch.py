"""What a loader gives (Batch), how it is set up beyond the usual (LoaderOptions), and what it measures (LoaderStats)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Augment = Literal["train"]
Backend = Literal["auto", "dali", "torch"]
Window = Literal["random", "center"] | int


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    Attributes:
        video: float32 [B, C, T, H, W], normalised with the manifest's mean and std.
        label: int64 [B]; -1 where the data set has no label.
        key: the samples' keys.
        video_path: path of each sample's source video, relative to the data set's root.
        is_padding: bool [B]; True for samples that are repeated so that all ranks take the same number of steps, and for
            those that stand in for damaged ones. Metrics leave them out.
    """

    video: Tensor
    label: Tensor
    key: list[str]
    video_path: list[str]
    is_padding: Tensor

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """Settings that few have to touch.

    Attributes:
        window: where in the stored clip the frames are taken: `random`, `center`, or a first frame. By default random with
            augmentation and centred without.
        epoch_unit: `video` takes one clip of each video an epoch, `clip` takes all clips.
        check: `crc` verifies the checksum of all that is read, `off` trades that for speed.
        on_bad: `raise` stops at a damaged sample; `skip` puts the next sample in its place, marked in `is_padding`.
        crop_scale: range of the random crop's share of the area.
        crop_ratio: range of its width to height.
        horizontal_flip: mirror half of the clips; by default what the manifest allows. Only with augmentation.
        threads: that read and, on the CPU, transform; by default one for each core that this process may use, 16 at most.
        prefetch_batches: that are prepared ahead of the one in use.
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


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has measured since it was made.

    Attributes:
        clips: given to the consumer.
        bytes_read: from the shards.
        wait_seconds: that the consumer spent waiting for a batch.
        busy_seconds: that the consumer spent between batches.
        bad_samples: damaged samples that were met.
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
    def wait_share(self) -> float:
        """Share of the time that the consumer waited, 0 to 1."""
        total = self.wait_seconds + self.busy_seconds
        return self.wait_seconds / total if total else 0.0
