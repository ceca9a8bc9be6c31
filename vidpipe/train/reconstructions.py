"""Pictures of masked-autoencoder pretraining: a few clips as they are, as the model sees them, and as it paints them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from vidpipe.loader import Batch
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.report.contact_sheet import ClipRow, write_contact_sheet
from vidpipe.train.objective import draw_masks
from vidpipe.train.pictures import FRAMES, as_frames

FOLDER = "reconstructions"
CLIPS = 4
_GROWTH = 1.25


class Reconstructions:
    """Draws the same clips, hidden in the same places, as a run goes on: FOLDER/step-N.png.

    The steps at which pictures may be drawn are the first one and those after evaluations and epochs; of these only as many
    are taken that each is about a quarter further along than the one before: a run of any length leaves some dozens of them.

    Args:
        out: the run folder; None draws nothing, but takes part in the forward passes (which may need all processes).
        clips: what is drawn.
        step: at which the run begins or goes on.
    """

    def __init__(self, out: Path | None, clips: Batch, *, step: int) -> None:
        self._folder = None if out is None else out / FOLDER
        self._clips = clips
        self._last = step if step else None

    def draw(
        self,
        module: VideoMAEPretrain,
        *,
        step: int,
        forward_context: Callable[[], AbstractContextManager[Any]],
        final: bool = False,
    ) -> Path | None:
        """Draw the picture of a step if it is due; the file, or None.

        Args:
            forward_context: makes the context (autocast) of a forward pass.
            final: the run ends here: a picture is due unless there is one of this step.
        """
        due = self._last is None or (step > self._last if final else _generation(step) > _generation(self._last))
        if not due:
            return None
        self._last = step
        module.eval()
        with torch.no_grad(), forward_context():
            mask = draw_masks(module, self._clips.key, seed=0, epoch=0)
            pictures = module.reconstruct(self._clips.video, mask)
        if self._folder is None:
            return None
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"step-{step:08d}.png"
        original, masked, painted = (video.float().cpu() for video in pictures)
        rows = []
        for name, *clips in zip(self._clips.video_path, original, masked, painted, strict=True):
            error = float((clips[2] - clips[0]).square().mean().sqrt())
            labels = {"as it is": name, "as the model sees it": "", "as it paints it": f"off by {error:.3f} (rms)"}
            rows += [
                ClipRow(label=label, details=(detail,), frames=as_frames(clip))
                for (label, detail), clip in zip(labels.items(), clips, strict=True)
            ]
        write_contact_sheet(rows, path, frames_per_clip=FRAMES, full_size=True)
        return path


def _generation(step: int) -> int:
    """Grows by one with each quarter that is added to the steps."""
    return math.floor(math.log(step, _GROWTH)) if step else -1
