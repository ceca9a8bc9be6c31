"""What arms that decode videos while training share: which frames, DataLoader workers, a random order without end."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, RandomSampler

from vidpipe.bench.clips import StoredClip, StoredClips
from vidpipe.bench.loader.arms.base import Arm, ArmSetup, Batches, Job
from vidpipe.bench.loader.arms.torch_dataset import ClipTransform, Item, iterate
from vidpipe.video.decord_library import can_decode
from vidpipe.video.spec import ClipSpec


@dataclass(frozen=True, slots=True)
class SourceClip:
    """How one stored clip is decoded again.

    Attributes:
        path: of its video.
        frame_indices: in the order of presentation.
        codec: of the video.
        size: width and height in pixels to which whole frames are scaled.
        crop: left, top, width and height of the stored part of them; None where they are stored whole.
    """

    key: str
    path: Path
    frame_indices: list[int]
    codec: str
    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None

    def cut(self, video: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The stored part of scaled frames, uint8 [T, H, W, 3]."""
        if self.crop is None:
            return video
        left, top, width, height = self.crop
        return np.ascontiguousarray(video[:, top : top + height, left : left + width])


class OnTheFlyArm(Arm):
    """A decoder that opens a video for each sample and takes the stored clip's frames from it.

    Attributes:
        whole_frames: it gives frames of the video's own size, and not the stored part of scaled ones.
    """

    decodes_anew: ClassVar[bool] = True
    from_videos: ClassVar[bool] = True
    whole_frames: ClassVar[bool] = False

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """It needs the videos, and some that it decodes rightly."""
        if setup.source is None:
            return "needs the videos: name their folder with --source (SOURCE=... for make)"
        return "" if cls.clips(setup) else f"no video in {setup.source} is both there and one that it can decode"

    @classmethod
    def clips(cls, setup: ArmSetup) -> list[SourceClip]:
        """Those stored clips that it can decode again."""
        return [clip for clip in source_clips(setup) if cls.suits(clip)]

    @classmethod
    def suits(cls, clip: SourceClip) -> bool:
        """Whether it finds the right frames of this video."""
        del clip
        return True

    @classmethod
    @abstractmethod
    def decode(cls, clip: SourceClip) -> NDArray[np.uint8]:
        """The clip's frames, uint8 [T, H, W, 3], scaled to `clip.size`, or not at all with `whole_frames`."""

    def batches(self, job: Job) -> Batches:
        """In a random order, by `workers` DataLoader workers."""
        clips = self.clips(self.setup)
        dataset = _Decoding(self, clips, ClipTransform(self.setup, job))
        order = torch.Generator().manual_seed(self.setup.seed)
        sampler = RandomSampler(
            dataset, num_samples=len(clips) << 30, generator=order
        )  # one permutation after the other
        yield from iterate(dataset, self.setup, job, workers=self.setup.workers, sampler=sampler)


def source_clips(setup: ArmSetup) -> list[SourceClip]:
    """All stored clips whose video is there, upright, and one that decord can decode."""
    assert setup.source is not None
    stored = StoredClips(setup.folder, frames=setup.frames)
    found = []
    for clip in stored.clips:
        path = setup.source / clip.video
        description = stored.description(clip)
        source = description["source"]
        whole = description["frame_indices"] is None
        # prep leaves to the ffmpeg program what decord can't be trusted with either.
        decodable = can_decode(source["codec"]) and (whole or source["decoder"] != "ffmpeg")
        if decodable and source["rotation"] == 0 and path.is_file():
            window = stored.window(clip)
            indices = window if whole else [int(description["frame_indices"][place]) for place in window]
            found.append(_source_clip(clip, path, indices, source, stored.manifest.clip))
    return found


def _source_clip(
    clip: StoredClip, path: Path, indices: list[int], source: dict[str, Any], spec: ClipSpec
) -> SourceClip:
    upright = source["width"], source["height"]
    crop = (*spec.crop_origin(*upright), *spec.crop) if spec.crop else None
    return SourceClip(clip.key, path, indices, source["codec"], spec.scaled_size(*upright), crop)


class _Decoding(Dataset[Item]):
    def __init__(self, arm: OnTheFlyArm, clips: list[SourceClip], transform: ClipTransform) -> None:
        self._arm = arm
        self._clips = clips
        self._transform = transform

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Item:
        clip = self._clips[index]
        video = self._arm.decode(clip)
        return clip.key, self._transform(video if self._arm.whole_frames else clip.cut(video))
