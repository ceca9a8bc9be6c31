"""Frames of the videos that a model takes for another class, for a picture of them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.loader import Batch
from vidpipe.report.contact_sheet import ClipRow, write_contact_sheet
from vidpipe.shards.manifest import Normalization
from vidpipe.train.device import gathered
from vidpipe.train.pictures import FRAMES, as_frames
from vidpipe.train.scores import Evaluation, VideoScore

MISTAKES = "misclassified.png"
_KEPT = 64
_SHOWN = 16


@dataclass(frozen=True)
class _Strip:
    """Some frames of a clip, uint8 [n, H, W, 3], and how sure the model is of the wrong class."""

    probability: float
    frames: NDArray[np.uint8]


class Mistakes:
    """Keeps, as clips go by, a few frames of those of whose wrong class a model is most certain.

    Args:
        normalization: that the clips have.
    """

    def __init__(self, normalization: Normalization) -> None:
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1, 1) for values in (normalization.mean, normalization.std)
        )
        self._strips: dict[str, _Strip] = {}

    def add(self, batch: Batch, probabilities: Tensor, *, real: Tensor) -> None:
        """Look at a batch.

        Args:
            probabilities: [B, K] on the CPU.
            real: bool [B], False for clips that don't count.
        """
        sure, said = probabilities.max(dim=1)
        paths = batch.video_key
        for row in (real.cpu() & (said != batch.label.cpu())).nonzero().flatten().tolist():
            path, probability = paths[row], float(sure[row])
            before = self._strips.get(path)
            full = len(self._strips) >= _KEPT
            bar = before.probability if before else self._strips[self._least()].probability if full else -1.0
            if probability <= bar:
                continue
            clip = batch.video[row]
            shown = torch.linspace(0, clip.shape[1] - 1, min(clip.shape[1], FRAMES)).round().long()
            pixels = clip[:, shown.to(clip.device)].float().cpu() * self._std + self._mean
            self._strips[path] = _Strip(probability, as_frames(pixels))
            if len(self._strips) > _KEPT:
                del self._strips[self._least()]

    def gather(self, evaluation: Evaluation, world_size: int) -> None:
        """Take over what the other processes kept of what is drawn; every process must call it.

        Nothing else is sent: what is, goes by way of each GPU's memory, in as many parts of the same size as there are processes.

        Args:
            evaluation: of the clips that went by.
        """
        kept = set().union(*gathered(set(self._strips), world_size))
        shown = {score.video for score in _surest(evaluation, kept)}
        own = {video: strip for video, strip in self._strips.items() if video in shown}
        for strips in gathered(own, world_size):
            self._strips = {**strips, **self._strips}

    def draw(self, evaluation: Evaluation, path: Path) -> Path | None:
        """Draw those that are wrong as whole videos, the most certain first; None if there is none.

        Args:
            evaluation: of the clips that went by.
        """
        names = [score.name for score in evaluation.classes]
        rows = []
        for score in _surest(evaluation, self._strips):
            details = (f"taken for {names[score.predicted]} ({score.probability:.0%})", score.video)
            rows.append(ClipRow(label=names[score.label], details=details, frames=self._strips[score.video].frames))
        if not rows:
            return None
        write_contact_sheet(rows, path, frames_per_clip=FRAMES)
        return path

    def _least(self) -> str:
        return min(self._strips, key=lambda path: self._strips[path].probability)


def _surest(evaluation: Evaluation, videos: Container[str]) -> list[VideoScore]:
    """Those of some videos that are wrong as wholes and of which the model is most certain, as many as are drawn."""
    wrong = [score for score in evaluation.scores if score.label != score.predicted and score.video in videos]
    return sorted(wrong, key=lambda score: -score.probability)[:_SHOWN]
