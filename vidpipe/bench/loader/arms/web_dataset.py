"""The webdataset package on the same shards, with torch's DataLoader."""

from __future__ import annotations

import io
import tarfile
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import webdataset as wds
from numpy.typing import NDArray

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import Arm, Batches, Job
from vidpipe.bench.loader.arms.torch_dataset import ClipTransform, Item, iterate
from vidpipe.video.decord_library import load_decord


class WebDatasetArm(Arm):
    """Sequential tar reading, worker processes, and some decoder."""

    title: ClassVar[str] = "WebDataset + DataLoader"

    @abstractmethod
    def pipeline(self, shards: list[str], stored: StoredClips) -> Any:
        """A data set of samples, decoded as far as webdataset does that."""

    @abstractmethod
    def video(self, sample: dict[str, Any], window: list[int]) -> NDArray[np.uint8]:
        """The wanted frames of a sample, uint8 [T, H, W, 3]."""

    def prepare(self) -> None:
        """Each worker takes whole shards: where there are fewer than workers, the samples are dealt out to more."""
        stored = StoredClips(self.setup.folder)
        if len(stored.shards) < self.setup.workers:
            shards = [stored.folder / shard for shard in stored.shards]
            _deal_out(shards, self.setup.scratch, parts=min(self.setup.workers, len(stored)))

    def batches(self, job: Job) -> Batches:
        """In the order of the shards, which are dealt out to the workers."""
        stored = StoredClips(self.setup.folder, frames=self.setup.frames)
        shards = [str(path) for path in sorted(self.setup.scratch.glob("*.tar"))]
        shards = shards or [str(stored.folder / shard) for shard in stored.shards]
        transform = ClipTransform(self.setup, job)
        windows = {clip.key: stored.window(clip) for clip in stored.clips}

        def item(sample: dict[str, Any]) -> Item:
            key = sample["__key__"]
            return key, transform(self.video(sample, windows[key]))

        dataset = self.pipeline(shards, stored).repeat().map(item)
        yield from iterate(dataset, self.setup, job, workers=min(self.setup.workers, len(shards)))


class WebDatasetArrayArm(WebDatasetArm):
    """Arrays by the stock decoder for .npy."""

    about: ClassVar[str] = (
        "webdataset.WebDataset(...).decode() in `workers` DataLoader workers, not shuffled (which favours it); "
        "train: torchvision's v2 transforms on uint8."
    )

    def pipeline(self, shards: list[str], stored: StoredClips) -> Any:
        """Whole arrays."""
        del stored
        return wds.WebDataset(shards, shardshuffle=False).decode(only=["npy", "cls"])

    def video(self, sample: dict[str, Any], window: list[int]) -> NDArray[np.uint8]:
        """The array, or some of its frames."""
        video: NDArray[np.uint8] = sample["npy"]
        return video if len(window) == len(video) else video[window]


class WebDatasetJpegArm(WebDatasetArm):
    """JPEG files by the stock decoder, which is PIL's."""

    about: ClassVar[str] = (
        'webdataset.WebDataset(...).decode("rgb8") of the wanted frames (PIL) in `workers` DataLoader workers, not shuffled '
        "(which favours it); train: torchvision's v2 transforms on uint8."
    )
    decodes_anew: ClassVar[bool] = True  # PIL brings a libjpeg of its own

    def pipeline(self, shards: list[str], stored: StoredClips) -> Any:
        """Only the wanted frames are decoded."""
        return wds.WebDataset(shards, shardshuffle=False).decode("rgb8", only=_names(stored))

    def video(self, sample: dict[str, Any], window: list[int]) -> NDArray[np.uint8]:
        """The frames, copied behind one another."""
        return np.stack([sample[_name(frame)] for frame in window])


class WebDatasetMp4Arm(WebDatasetArm):
    """Videos by decord, from memory."""

    about: ClassVar[str] = (
        "webdataset.WebDataset(...) and a decord.VideoReader on each video's bytes in `workers` DataLoader workers, not shuffled "
        "(which favours it); train: torchvision's v2 transforms on uint8."
    )
    decodes_anew: ClassVar[bool] = True

    def pipeline(self, shards: list[str], stored: StoredClips) -> Any:
        """Undecoded."""
        del stored
        return wds.WebDataset(shards, shardshuffle=False)

    def video(self, sample: dict[str, Any], window: list[int]) -> NDArray[np.uint8]:
        """By `get_batch`, which seeks to the key frame before."""
        reader = load_decord().VideoReader(io.BytesIO(sample["mp4"]), num_threads=1)
        frames: NDArray[np.uint8] = reader.get_batch(window).asnumpy()
        return frames


def _deal_out(shards: Sequence[Path], folder: Path, *, parts: int) -> None:
    """Write the samples to `parts` archives in turn."""
    place: dict[str, int] = {}
    with ExitStack() as stack:
        archives = [stack.enter_context(tarfile.open(folder / f"{part:05d}.tar", "w")) for part in range(parts)]
        for shard in shards:
            source = stack.enter_context(tarfile.open(shard))
            for member in source:
                number = place.setdefault(member.name.partition(".")[0], len(place))
                archives[number % parts].addfile(member, source.extractfile(member))


def _name(frame: int) -> str:
    return f"{frame:04d}.jpg"


def _names(stored: StoredClips) -> list[str]:
    return [_name(frame) for frame in stored.window(stored.clips[0])]
