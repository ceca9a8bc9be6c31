"""What a model is and costs, counted without allocating it (on PyTorch's meta device)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidpipe.models.base import VideoModel

_NUM_CLASSES = 400


@dataclass(frozen=True)
class ModelSummary:
    """A row of `vidpipe list models`: the model with its default configuration and 400 classes.

    Everything but name and description is found out when it is read.
    """

    name: str
    description: str

    @cached_property
    def model(self) -> VideoModel:
        """The model on the meta device: shapes without memory."""
        import torch

        from vidpipe.models import create_model

        with torch.device("meta"):
            return create_model(self.name, num_classes=_NUM_CLASSES).eval()

    @property
    def num_frames(self) -> int:
        """T of the input."""
        return self.model.config.num_frames

    @property
    def image_size(self) -> int:
        """H and W of the input."""
        return self.model.config.image_size

    @property
    def parameters(self) -> int:
        """Number of parameters, frozen ones too."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def trainable_parameters(self) -> int:
        """Number of parameters that training changes."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @cached_property
    def gmac(self) -> float:
        """Multiply-accumulates of one forward pass over one clip, in 10^9 (matrix products and convolutions only)."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        size = self.image_size
        video = torch.zeros(1, 3, self.num_frames, size, size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.model(video)
        return float(counter.get_total_flops()) / 2e9

    def __str__(self) -> str:
        frozen = self.parameters - self.trainable_parameters
        return (
            f"{self.description}; {self.num_frames} x {self.image_size}^2, {_short(self.parameters / 1e6)} M parameters"
            f"{f' ({_short(frozen / 1e6)} M frozen)' if frozen else ''}, {_short(self.gmac)} GMAC per clip"
        )


def _short(number: float) -> str:
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"
