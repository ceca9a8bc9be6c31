"""What an evaluation found: accuracy by video and by class, and which classes were taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from vidpipe.report.fonts import printable

#: Of more classes a matrix of all pairs is too large to be of use: 20,000 would take gigabytes, nearly all of it zeros.
MOST_MATRIX_CLASSES = 1000


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
        shuffled: whether the frames of each clip were put into a random order first.
        views: windows and crops of each video; None if they were the centres of its stored clips.
        scores: for each video, in the order of their paths.
        bad_samples: damaged ones, and shards that can't be opened, that were left out.
    """

    split: str
    videos: int
    clips: int
    loss: float
    top1: float
    top5: float
    classes: tuple[ClassScore, ...]
    shuffled: bool
    views: tuple[int, int] | None
    scores: tuple[VideoScore, ...]
    bad_samples: int = 0

    def confusion(self, *, classes_per_cell: int = 1) -> Tensor:
        """Numbers of videos by label and prediction, int64 [n, n].

        Args:
            classes_per_cell: so many neighbouring classes are counted together, for both.
        """
        size = -(-len(self.classes) // classes_per_cell)
        cells = [score.label // classes_per_cell * size + score.predicted // classes_per_cell for score in self.scores]
        return torch.tensor(cells, dtype=torch.int64).bincount(minlength=size * size).view(size, size)

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`: the fields and, of up to MOST_MATRIX_CLASSES classes, `confusion[label][predicted]`."""
        matrix = self.confusion().tolist() if len(self.classes) <= MOST_MATRIX_CLASSES else None
        return {**asdict(self), "confusion": matrix}

    def line(self) -> str:
        """One line for people."""
        order = " (frames shuffled)" if self.shuffled else ""
        accuracy = f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}"
        views = f" of {self.views[0]} x {self.views[1]} views" if self.views else ""
        bad = f", {self.bad_samples} damaged samples left out" if self.bad_samples else ""
        return f"{self.split}{order}: {accuracy}, loss {self.loss:.4f}, {self.videos} videos{views}{bad}"

    def table(self) -> list[str]:
        """One line for each class, the worst first; classes without a video are left out."""
        width = max(len(printable(score.name)) for score in self.classes)
        known = [(score.top1, score) for score in self.classes if score.top1 is not None]
        ranked = sorted(known, key=lambda pair: (pair[0], pair[1].name))
        return [f"{printable(score.name):<{width}}  {top1:6.1%}  {score.videos:5d} videos" for top1, score in ranked]


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
    videos: Sequence[str],
    labels: Sequence[int],
    probabilities: Tensor,
    clips: int,
    mean_loss: float,
    shuffled: bool = False,
    views: tuple[int, int] | None = None,
) -> Evaluation:
    """The evaluation of videos' probabilities.

    Args:
        videos: N videos' paths.
        labels: their labels.
        probabilities: float [N, K], each row sums to 1.
        clips: over how many the probabilities were averaged, in all.
    """
    label, count = torch.tensor(labels), len(class_names)
    probability, predicted = probabilities.max(dim=1)
    of_class = label.bincount(minlength=count).tolist()
    right = label[predicted == label].bincount(minlength=count).tolist()
    return Evaluation(
        split=split,
        videos=len(videos),
        clips=clips,
        loss=mean_loss,
        top1=float(multiclass_accuracy(predicted, label, num_classes=count, average="micro")),
        top5=float(multiclass_accuracy(probabilities, label, num_classes=count, average="micro", top_k=min(5, count))),
        classes=tuple(
            ClassScore(name, number, correct / number if number else None)
            for name, number, correct in zip(class_names, of_class, right, strict=True)
        ),
        shuffled=shuffled,
        views=views,
        scores=tuple(
            VideoScore(*values) for values in zip(videos, labels, predicted.tolist(), probability.tolist(), strict=True)
        ),
    )
