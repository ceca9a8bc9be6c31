"""Prediction on video files: decoded, cut, cropped and normalised exactly as the checkpoint's data were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidpipe.errors import CheckpointError, UsageError, VideoError
from vidpipe.loader.transform import center_clip
from vidpipe.train.checkpoint import Preprocessing, build_classifier, read_checkpoint
from vidpipe.train.device import Device, make_fabric
from vidpipe.train.recipe import Precision
from vidpipe.video.decode import extract_clips

Decoder = Literal["auto", "decord", "ffmpeg"]


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


def predict(
    checkpoint: Path,
    videos: Sequence[Path],
    *,
    top: int = 5,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int = 8,
    decoder: Decoder = "auto",
    on_prediction: Callable[[Prediction], None] | None = None,
) -> PredictResult:
    """Classify video files; one that can't be used doesn't stop the others.

    Args:
        checkpoint: a file or a run folder (its best, else its last).
        videos: files.
        top: how many classes to name.
        batch_size: clips that go through the model at a time.
        on_prediction: called with each prediction as it is made.

    Raises:
        UsageError: no videos, or `top` below 1.
        CheckpointError: the checkpoint can't be used.
    """
    if not videos:
        raise UsageError("predict: no videos given")
    if top < 1:
        raise UsageError(f"--top {top}: expected at least 1")
    loaded = read_checkpoint(checkpoint)
    if loaded.preprocessing.codec.name == "mp4":
        raise CheckpointError(f"{loaded.path}: learned from re-encoded videos, whose windows predict can't cut yet")
    fabric = make_fabric(device=device, precision=precision)
    model = fabric.to_device(build_classifier(loaded))
    predictions = []
    for video in videos:
        try:
            clips = prepare_clips(video, loaded.preprocessing, decoder=decoder)
        except VideoError as error:
            prediction = Prediction(str(video), 0, (), " ".join(f"{error.reason}: {error.message}".split()))
        else:
            with fabric.autocast():
                probabilities = _probabilities(model, clips, batch_size=batch_size, device=fabric.device)
            names = loaded.preprocessing.classes
            best = probabilities.topk(min(top, len(names)))
            ranked = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            prediction = Prediction(
                str(video), len(clips), tuple(ClassProbability(names[i], value) for value, i in ranked)
            )
        predictions.append(prediction)
        if on_prediction is not None:
            on_prediction(prediction)
    return PredictResult(tuple(predictions))


def prepare_clips(video: Path, preprocessing: Preprocessing, *, decoder: Decoder = "auto") -> list[Tensor]:
    """The model's clips of a video file, each float32 [3, T, size, size].

    Raises:
        VideoError: the file can't be used.
    """
    clip = preprocessing.clip
    return [
        center_clip(
            extracted.video,
            clip,
            frames=preprocessing.frames,
            stride=preprocessing.stride,
            size=preprocessing.size,
            normalization=preprocessing.normalization,
        )
        for extracted in extract_clips(video, clip, key=video.name, decoder=decoder).clips
    ]


def find_videos(paths: Iterable[Path], *, suffixes: Sequence[str]) -> list[Path]:
    """Files as they are, and the video files in and below folders, sorted.

    Args:
        suffixes: what counts as a video in a folder, in lower case, for instance `.mp4`.

    Raises:
        UsageError: a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))
        if not inside:
            raise UsageError(f"{path}: no video files in this folder")
        found += inside
    return found


def _probabilities(model: nn.Module, clips: Sequence[Tensor], *, batch_size: int, device: torch.device) -> Tensor:
    """The mean softmax over the clips: float64 [K], on the CPU."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(clips), batch_size):
            batch = torch.stack(list(clips[start : start + batch_size])).to(device)
            parts.append(model(batch).float().softmax(dim=1).double().cpu())
    return torch.cat(parts).mean(dim=0)
