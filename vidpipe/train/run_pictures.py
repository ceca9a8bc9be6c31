"""The pictures that a run draws of itself: its first batch, reconstructions, and what its last evaluation found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.loader import Batch
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.train.mistakes import MISTAKES, Mistakes
from vidpipe.train.pictures import CONFUSION, INPUT, draw_confusion, draw_curves, draw_input
from vidpipe.train.reconstructions import Reconstructions
from vidpipe.train.scores import Evaluation, ReconstructionScore
from vidpipe.train.state import RunState


@dataclass
class RunPictures:
    """Draws into a run folder.

    Attributes:
        out: the run folder.
        input_due: the next batch shall be drawn as the model sees it.
        reconstructions: draws what pretraining makes of some clips; None where there are none to draw.
    """

    state: RunState
    out: Path
    input_due: bool
    reconstructions: Reconstructions | None

    def draw_input(self, batch: Batch, *, epoch: int) -> None:
        """Draw a batch as the model is shown it in an epoch."""
        self.input_due = False
        data = self.state.preprocessing
        video, target = self.state.learner.mix(batch, epoch=epoch)
        draw_input(
            replace(batch, video=video),
            target=target,
            normalization=data.normalization,
            classes=data.classes,
            path=self.out / INPUT,
        )

    def draw_reconstructions(self, *, final: bool = False) -> None:
        """Draw reconstructions if they are due at this step; every process must call it."""
        learner = self.state.learner
        module = learner.evaluated_module
        if self.reconstructions is not None and isinstance(module, VideoMAEPretrain):
            context = learner.fabric.autocast
            self.reconstructions.draw(module, step=self.state.step, forward_context=context, final=final)

    def draw_end(self, evaluation: Evaluation | ReconstructionScore | None, mistakes: Mistakes | None) -> None:
        """Draw the curves, and of the last evaluation what was taken for what, and the surest mistakes."""
        draw_curves(self.out)
        if isinstance(evaluation, Evaluation):
            draw_confusion(evaluation, self.out / CONFUSION)
            if mistakes is not None:
                mistakes.draw(evaluation, self.out / MISTAKES)
