"""What a model is trained to do: name a clip's class, or paint the hidden parts of it (masked-autoencoder pretraining)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.loader.transfer import to_device
from vidpipe.models.videomae_pretrain import VideoMAEPretrain


@dataclass(frozen=True)
class Shown:
    """What a model is shown in one forward pass.

    Attributes:
        video: float [B, 3, T, H, W], augmented and mixed.
        target: int64 [B], or float [B, K] where labels are mixed.
        label: int64 [B] before mixing.
        real: bool [B], False for clips that don't count: padding, and, for classification, those without a label.
        keys: the clips' keys.
        epoch: number of the epoch.
    """

    video: Tensor
    target: Tensor
    label: Tensor
    real: Tensor
    keys: Sequence[str]
    epoch: int


class Objective(Protocol):
    """How a forward pass becomes a loss."""

    @property
    def needs_labels(self) -> bool:
        """Whether clips without a label count for nothing."""

    def output(self, model: Callable[..., Any], shown: Shown) -> tuple[Tensor, Tensor | None]:
        """The model's output (float32), and the mask that it was given, if any."""

    def losses(self, output: Tensor, mask: Tensor | None, shown: Shown) -> Tensor:
        """Each clip's loss, float32 [B], also of those that don't count."""

    def correct(self, output: Tensor, shown: Shown) -> Tensor | None:
        """Number of clips that were classified rightly; None where that has no meaning."""


@dataclass(frozen=True)
class Classification:
    """Cross entropy between the logits and the labels, hard or soft."""

    label_smoothing: float
    soft: bool
    needs_labels: bool = True

    def output(self, model: Callable[..., Any], shown: Shown) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [B, K]."""
        return model(shown.video).float(), None

    def losses(self, output: Tensor, mask: Tensor | None, shown: Shown) -> Tensor:
        """Cross entropies."""
        return F.cross_entropy(output, shown.target, label_smoothing=self.label_smoothing, reduction="none")

    def correct(self, output: Tensor, shown: Shown) -> Tensor | None:
        """Clips whose label has the highest logit; None where labels are mixed."""
        if self.soft:
            return None
        return ((output.detach().argmax(dim=1) == shown.label) & shown.real).sum()


@dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of the hidden parts; what is hidden of a clip depends on (seed, epoch, key) alone."""

    module: VideoMAEPretrain
    seed: int
    needs_labels: bool = False

    def output(self, model: Callable[..., Any], shown: Shown) -> tuple[Tensor, Tensor | None]:
        """Predicted pixels of the hidden tubelets, and the mask."""
        mask = to_device(draw_masks(self.module, shown.keys, seed=self.seed, epoch=shown.epoch), shown.video.device)
        return model(shown.video, mask).float(), mask

    def losses(self, output: Tensor, mask: Tensor | None, shown: Shown) -> Tensor:
        """Mean squared errors."""
        if mask is None:
            raise ValueError("reconstruction needs the mask that the model was given")
        return self.module.clip_losses(output, shown.video, mask)

    def correct(self, output: Tensor, shown: Shown) -> Tensor | None:
        """Nothing is classified."""
        return None


def objective_for(module: nn.Module, *, label_smoothing: float, soft: bool, seed: int) -> Objective:
    """The objective that goes with a model."""
    if isinstance(module, VideoMAEPretrain):
        return Reconstruction(module, seed)
    return Classification(label_smoothing, soft)


def draw_masks(module: VideoMAEPretrain, keys: Sequence[str], *, seed: int, epoch: int) -> Tensor:
    """Masks bool [B, N], each a function of (seed, epoch, key)."""
    masks = []
    for key in keys:
        digest = hashlib.blake2b(f"mask/{seed}/{epoch}/{key}".encode(), digest_size=7).digest()
        masks.append(module.draw_mask(1, torch.Generator().manual_seed(int.from_bytes(digest, "little"))))
    return torch.cat(masks)
