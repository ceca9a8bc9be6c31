"""Prediction on video files: decoded, cut, cropped and normalised exactly as the checkpoint's data were."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError, one_line
from vidpipe.loader.augmentation.transform import center_clip
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.train.checkpoint import Preprocessing, build_classifier, read_checkpoint
from vidpipe.train.decoding import DecodedVideo, DecodingPool
from vidpipe.train.device import Device, make_fabric, precision_as_trained
from vidpipe.train.memory import memory_advice
from vidpipe.train.recipe import Precision
from vidpipe.train.stored_clips import stored_clips
from vidpipe.video.decode import Decoder


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model says about one video.

    Attributes:
        video: as it was given.
        clips: how many of the video's clips the probabilities are averaged over.
        top: the most probable classes, in falling order.
        error: why there is no prediction; `top` is empty then.
    """

    video: str
    clips: int
    top: tuple[ClassProbability, ...]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class PredictResult:
    """Predictions in the order of the videos."""

    predictions: tuple[Prediction, ...]

    @property
    def num_failed(self) -> int:
        """Videos without a prediction."""
        return sum(prediction.error is not None for prediction in self.predictions)

    @property
    def exit_code(self) -> int:
        """1 if any video failed."""
        return 1 if self.num_failed else 0


@dataclass(frozen=True)
class PredictOptions:
    """How prediction goes about its work.

    Attributes:
        top: how many classes to name.
        batch_size: clips that go through the model at a time; they may be of several videos.
        workers: decoding processes; one for each core by default.
        timeout_seconds: for decoding one video.
        precision: `auto` is what the model was trained in, but fp32 on the CPU.
    """

    top: int = 5
    batch_size: int = 8
    workers: int | None = None
    timeout_seconds: float = 120.0
    device: Device = "auto"
    precision: Precision = "auto"
    decoder: Decoder = "auto"


def predict(
    checkpoint: Path,
    videos: Iterable[Path],
    options: PredictOptions | None = None,
    *,
    on_prediction: Callable[[Prediction], None] | None = None,
) -> PredictResult:
    """Classify video files; one that can't be used doesn't stop the others.

    Args:
        checkpoint: a file, a folder or a run folder (its best, else its last).
        videos: files; they may be long in coming (see `vidpipe.train.video_list`).
        on_prediction: called with each prediction, in the order of the videos, as soon as it is made.

    Raises:
        UsageError: no videos, or a number below 1.
        CheckpointError: the checkpoint can't be used.
    """
    options = options or PredictOptions()
    for name, value in (("--top", options.top), ("--batch-size", options.batch_size), ("--workers", options.workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: expected at least 1")
    loaded = read_checkpoint(checkpoint)
    model = build_classifier(loaded)
    precision = precision_as_trained(options.precision, loaded.recipe, options.device)
    fabric = make_fabric(device=options.device, precision=precision)
    predictions = []
    pool = DecodingPool(
        stored_clips(loaded.preprocessing),
        workers=options.workers or usable_cores(),
        timeout_seconds=options.timeout_seconds,
        decoder=options.decoder,
    )
    where = f"prediction with {options.batch_size} clips at a time"
    with memory_advice(where, fabric.device, "try a smaller --batch-size"), pool:
        classifier = _Classifier(fabric, fabric.to_device(model), loaded.preprocessing, options)
        for prediction in classifier.run(pool.run(videos)):
            predictions.append(prediction)
            if on_prediction is not None:
                on_prediction(prediction)
    if not predictions:
        raise UsageError("predict: no videos given")
    return PredictResult(tuple(predictions))


@dataclass
class _Pending:
    """A video of which not all clips have been through the model: the sum of the probabilities so far, float64 [K]."""

    path: Path
    num_clips: int
    error: str | None
    num_done: int = 0
    total: Tensor | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or self.num_done == self.num_clips


class _Classifier:
    """Puts clips of several videos through the model at a time."""

    def __init__(self, fabric: Fabric, model: nn.Module, preprocessing: Preprocessing, options: PredictOptions) -> None:
        self._fabric, self._model, self._preprocessing, self._options = fabric, model, preprocessing, options
        self._spec = stored_clips(preprocessing).spec
        self._pending: deque[_Pending] = deque()
        self._clips: list[tuple[_Pending, Tensor]] = []

    def run(self, decoded: Iterable[DecodedVideo | None]) -> Iterator[Prediction]:
        """The predictions in the order of the videos; a batch that is not full doesn't wait for videos that don't come."""
        for video in decoded:
            if video is None:
                self._forward(all_clips=True)
            else:
                self._take(video)
                self._forward(all_clips=False)
            yield from self._finished()
        self._forward(all_clips=True)
        yield from self._finished()

    def _take(self, video: DecodedVideo) -> None:
        if video.clips is None:
            reason = f"{video.error.reason}: {video.error.message}" if video.error else "no clips"
            self._pending.append(_Pending(video.path, 0, one_line(reason)))
            return
        pending = _Pending(video.path, len(video.clips), None)
        self._pending.append(pending)
        for clip in video.clips:
            self._clips.append((pending, self._prepared(clip)))

    def _prepared(self, clip: NDArray[np.uint8]) -> Tensor:
        """The model's input for a clip, float32 [3, T, size, size]."""
        chosen = self._preprocessing
        whole = stores_whole_videos(chosen.codec)
        return center_clip(
            clip,
            self._spec,
            frames=None if whole else chosen.frames,
            stride=None if whole else chosen.stride,
            size=chosen.size,
            normalization=chosen.normalization,
        )

    def _forward(self, *, all_clips: bool) -> None:
        size = self._options.batch_size
        while len(self._clips) >= size or (all_clips and self._clips):
            batch, self._clips = self._clips[:size], self._clips[size:]
            video = torch.stack([clip for _, clip in batch]).to(self._fabric.device)
            with torch.inference_mode(), self._fabric.autocast():
                probabilities = self._model(video).float().softmax(dim=1).double().cpu()
            for (pending, _), row in zip(batch, probabilities, strict=True):
                pending.num_done += 1
                pending.total = row if pending.total is None else pending.total + row

    def _finished(self) -> Iterator[Prediction]:
        while self._pending and self._pending[0].is_done:
            yield self._prediction(self._pending.popleft())

    def _prediction(self, pending: _Pending) -> Prediction:
        name = os.fsencode(pending.path).decode("utf-8", "backslashreplace")
        if pending.total is None:
            return Prediction(name, 0, (), pending.error or "no clips")
        classes = self._preprocessing.classes
        if not pending.total.isfinite().all():
            error = "the model gives no finite probabilities; try --precision fp32 or another checkpoint"
            return Prediction(name, 0, (), error)
        best = (pending.total / pending.num_clips).topk(min(self._options.top, len(classes)))
        ranked = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return Prediction(name, pending.num_clips, tuple(ClassProbability(classes[i], value) for value, i in ranked))
