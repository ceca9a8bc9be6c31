"""What an evaluation found: accuracy by video and by class, and which classes were taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


@dataclass(frozen=True)
class ClassScore:
    """How one class was recognised; `top1` is None where the split has no video of it."""

    name: str
    videos: int
    top1: float | None


@dataclass(frozen=True)
class VideoScore:
    """What the model said about one video: its label, the class with the highest probability, and that probability."""

    video: str
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        split: what was evaluated.
        videos, clips: how many; a video's clips are averaged.
        loss: mean cross entropy over clips.
        top1, top5: share of the videos whose label is the first, or among the first five, classes.
        classes: for each class.
        confusion: confusion[label][predicted], numbers of videos.
        shuffled: whether the frames of each clip were put into a random order first.
        scores: for each video, in the order of their paths.
    """

    split: str
    videos: int
    clips: int
    loss: float
    top1: float
    top5: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    shuffled: bool
    scores: tuple[VideoScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return asdict(self)

    def line(self) -> str:
        """One line for people."""
        order = " (frames shuffled)" if self.shuffled else ""
        accuracy = f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}"
        return f"{self.split}{order}: {accuracy}, loss {self.loss:.4f}, {self.videos} videos"

    def table(self) -> list[str]:
        """One line for each class, the worst first; classes without a video are left out."""
        width = max(len(score.name) for score in self.classes)
        known = [(score.top1, score) for score in self.classes if score.top1 is not None]
        ranked = sorted(known, key=lambda pair: (pair[0], pair[1].name))
        return [f"{score.name:<{width}}  {top1:6.1%}  {score.videos:5d} videos" for top1, score in ranked]


@dataclass(frozen=True)
class ReconstructionScore:
    """How well hidden parts of a split's clips were painted.

    Attributes:
        clips: how many.
        loss: mean squared error.
    """

    split: str
    clips: int
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return asdict(self)

    def line(self) -> str:
        """One line for people."""
        return f"{self.split}: reconstruction loss {self.loss:.4f}, {self.clips} clips"


def summarize(
    *,
    split: str,
    class_names: Sequence[str],
    video_names: Sequence[str],
    labels: Sequence[int],
    probabilities: Tensor,
    mean_loss: float,
    shuffled: bool = False,
) -> Evaluation:
    """The evaluation of clips' probabilities.

    Args:
        video_names: N videos' names, one for each clip.
        labels: the N clips' labels.
        probabilities: float [N, K], each row sums to 1.
    """
    names = sorted(set(video_names))
    index = {name: number for number, name in enumerate(names)}
    video = torch.tensor([index[name] for name in video_names])
    num_classes = len(class_names)
    sums = torch.zeros(len(names), num_classes, dtype=torch.float64).index_add_(0, video, probabilities.double())
    mean = sums / torch.bincount(video, minlength=len(names)).unsqueeze(1)
    label = torch.zeros(len(names), dtype=torch.long).index_copy_(0, video, torch.tensor(labels))
    best = mean.topk(min(5, num_classes), dim=1).indices
    right = best == label.unsqueeze(1)
    confusion = multiclass_confusion_matrix(best[:, 0], label, num_classes=num_classes).tolist()
    return Evaluation(
        split=split,
        videos=len(names),
        clips=len(video_names),
        loss=mean_loss,
        top1=float(right[:, 0].double().mean()),
        top5=float(right.any(dim=1).double().mean()),
        classes=tuple(
            ClassScore(name, sum(row), row[number] / sum(row) if sum(row) else None)
            for number, (name, row) in enumerate(zip(class_names, confusion, strict=True))
        ),
        confusion=tuple(tuple(row) for row in confusion),
        shuffled=shuffled,
        scores=tuple(
            VideoScore(name, int(label[i]), int(best[i, 0]), float(mean[i, best[i, 0]])) for i, name in enumerate(names)
        ),
    )
