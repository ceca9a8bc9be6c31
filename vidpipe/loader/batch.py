"""What a loader gives: batches of the model's input, or of clips as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    Attributes:
        video: [B, C, T, H, W] of the loader's dtype, normalised with the mean and std of `Loader.manifest`.
        label: int64 [B]; -1 where the data set has no label.
        key: the samples' keys.
        clip_key: names of the clips, by which things are drawn for them: no other clip of the epoch has the same but its
            repetitions, which `is_padding` marks, and neither the batch size nor the number of ranks matters (see `clip_names`).
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
    clip_key: list[str]
    video_path: list[str]
    is_padding: Tensor
    view: Tensor
    dataset: Tensor

    @property
    def video_key(self) -> list[str]:
        """Names for videos: their paths, from the second data set on with its number in front."""
        pairs = zip(self.dataset.tolist(), self.video_path, strict=True)
        return [f"{dataset}:{path}" if dataset else path for dataset, path in pairs]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on a device, as those want it who move batches about, such as Lightning."""
        return replace(
            self,
            video=self.video.to(device, non_blocking=non_blocking),
            label=self.label.to(device, non_blocking=non_blocking),
            is_padding=self.is_padding.to(device, non_blocking=non_blocking),
            view=self.view.to(device, non_blocking=non_blocking),
            dataset=self.dataset.to(device, non_blocking=non_blocking),
        )

    def __len__(self) -> int:
        return len(self.key)

    def __repr__(self) -> str:
        return f"<Batch of {list(self.video.shape)} {self.video.dtype} on {self.video.device}>"


def clip_names(keys: Iterable[str], *, datasets: Iterable[int], numbers: Iterable[int]) -> list[str]:
    """Names for clips: their samples' keys, in front of them, from the second data set on, its number, and behind them, from
    a sample's second clip in the epoch on, the clip's.
    """
    named = zip(keys, datasets, numbers, strict=True)
    return [
        f"{f'{dataset}:' if dataset else ''}{key}{f'/{number}' if number else ''}" for key, dataset, number in named
    ]


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Clips as they are stored, without any transform.

    Attributes:
        clips: uint8 [T, H, W, 3], RGB, one after the other in one buffer that isn't written to again. Clips that came of one read
            share its frames' memory.
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

    def __repr__(self) -> str:
        return f"<RawBatch of {len(self)} clips, {', '.join(sorted({str(list(clip.shape)) for clip in self.clips}))}>"

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
        extent = (len(first) - 1) * first.strides[0] + first[0].nbytes
        step = int(starts[1] - starts[0]) if len(starts) > 1 else extent
        together = first.base is not None and all(clip.base is first.base for clip in self.clips)
        alike = all(clip.strides == first.strides for clip in self.clips)
        if not (together and alike and step >= extent and (np.diff(starts) == step).all()):
            return np.stack(self.clips)  # several windows of one read, or a stand-in with memory of its own
        return np.lib.stride_tricks.as_strided(first, (len(starts), *first.shape), (step, *first.strides))
