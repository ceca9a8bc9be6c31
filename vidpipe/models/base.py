"""What every video model has in common: a frozen configuration, a checked input, and what timm's optimisers ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.utils.checkpoint
from pydantic import Field
from torch import Tensor, nn

from vidpipe.errors import ModelError
from vidpipe.models.positions import PositionAxis
from vidpipe.recipes import Section

MERGE = (99999,)
"""Ordinal by which timm's `group_matcher` puts parameters into the group before them."""


class ModelConfig(Section):
    """Fields that every model's configuration has.

    Args:
        num_frames: T of the input clip.
        image_size: H and W of the input clip.
        checkpointing: recompute activations of blocks in the backward pass: less memory, about a third more time.
    """

    num_frames: int = Field(default=16, ge=1)
    image_size: int = Field(default=224, ge=8)
    checkpointing: bool = False

    @property
    def any_multiple_of(self) -> tuple[int, int, int] | None:
        """Of which the model takes any multiples as T, H and W; None where it takes the configured ones only."""
        return None


class VideoModel(nn.Module):
    """Base of all models: `forward(video)` takes float [B, 3, T, H, W], normalised, and gives logits [B, num_classes].

    Args:
        config: the model's configuration.
        num_classes: number of logits.

    Attributes:
        family: which key maps of published weights apply.
        position_axes: parameters that are resampled when published ones have another length.
        frozen_parts: how the names of parameters begin that training never changes and checkpoints leave out.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    family: ClassVar[str] = ""
    position_axes: ClassVar[dict[str, PositionAxis]] = {}
    frozen_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ModelConfig, *, num_classes: int) -> None:
        super().__init__()
        self._config = config
        self.num_classes = num_classes
        self.clip_shape = (config.num_frames, config.image_size, config.image_size)
        self.any_multiple_of = config.any_multiple_of

    @property
    def config(self) -> ModelConfig:
        """The configuration; `create_model(name, num_classes=..., **config.model_dump())` makes the model anew."""
        return self._config

    def no_weight_decay(self) -> set[str]:
        """Names of parameters of two and more dimensions that weight decay leaves alone (positions, tokens)."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that put parameters into layers, from input to output, as timm's layer decay expects them.

        Args:
            coarse: fewer, larger groups, where a model has them.
        """
        raise NotImplementedError

    def check_input(self, video: Tensor) -> None:
        """Refuse a clip that the model was not configured for.

        Raises:
            ModelError: with the shape that was got and the shape that was expected.
        """
        name = type(self).__name__
        frames, height, width = self.clip_shape
        if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point():
            raise ModelError(
                f"{name}: expected a float video [B, 3, {frames}, {height}, {width}], "
                f"got {video.dtype} {list(video.shape)}"
            )
        got = tuple(video.shape[2:])
        if self.any_multiple_of is not None:
            if any(n < step or n % step for n, step in zip(got, self.any_multiple_of, strict=True)):
                raise ModelError(f"{name}: T, H, W = {got} must be multiples of {self.any_multiple_of}")
        elif got != self.clip_shape:
            raise ModelError(
                f"{name}: configured for T, H, W = {self.clip_shape}, got {got}; "
                f"set num_frames and image_size to what the loader gives{self._other_sizes_hint()}"
            )

    def _other_sizes_hint(self) -> str:
        for option in ("interpolate_positions", "any_size"):
            if option in type(self._config).model_fields:
                return f", or {option}=true"
        return ""


def init_transformer(module: nn.Module) -> None:
    """Initialise linear layers from a truncated normal and norms to the identity, as ViT implementations do."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)


def init_linear(module: nn.Module) -> None:
    """Initialise linear layers as Glorot and Bengio do, with biases of zero."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, *args: object, checkpointing: bool) -> Tensor:
    """`x` through the blocks in order, recomputing their activations in the backward pass if `checkpointing`.

    Args:
        args: further arguments of each block.
    """
    for block in blocks:
        if checkpointing and torch.is_grad_enabled():
            x = torch.utils.checkpoint.checkpoint(block, x, *args, use_reentrant=False)
        else:
            x = block(x, *args)
    return x
