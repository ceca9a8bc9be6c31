"""R(2+1)D features read by Perceiver attention instead of being averaged."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vidpipe.models.base import VideoModel, run_blocks
from vidpipe.models.perceiver import PerceiverLayer
from vidpipe.models.r2plus1d import TRUNK_GROUPS, TRUNK_GROUPS_COARSE, R2Plus1DTrunk, TrunkConfig


class R2Plus1DPerceiverConfig(TrunkConfig):
    """Configuration of `R2Plus1DPerceiver`.

    Args:
        num_blocks: residual blocks of the trunk that are kept, from the first.
        num_cross: cross-attention layers; 0 leaves self-attention over the trunk's own features.
        num_self: self-attention layers after each cross-attention layer (or in all, with no cross-attention).
        num_queries: learned queries that cross-attention fills.
        latent_width: size of a query; must be the trunk's channels without cross-attention.
        cross_heads, self_heads: attention heads.
        head_width: channels of a head.
        dropout: in attention and feed-forward parts.
    """

    num_blocks: int = Field(default=8, ge=1)
    num_cross: int = Field(default=1, ge=0)
    num_self: int = Field(default=1, ge=0)
    num_queries: int = Field(default=128, ge=1)
    latent_width: int = Field(default=512, ge=1)
    cross_heads: int = Field(default=1, ge=1)
    self_heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def trunk_channels(self) -> int:
        """Channels of the last kept block."""
        stage = next(i for i in range(4) if self.num_blocks <= sum(self.layers[: i + 1]))
        return self.width << stage

    @model_validator(mode="after")
    def _consistent(self) -> R2Plus1DPerceiverConfig:
        if self.num_blocks > sum(self.layers):
            raise ValueError(f"num_blocks {self.num_blocks}: the trunk has {sum(self.layers)}")
        if self.num_cross == 0 and self.num_self == 0:
            raise ValueError("num_cross and num_self are both 0: at least one attention layer is needed")
        if self.num_cross == 0 and self.latent_width != self.trunk_channels:
            raise ValueError(
                f"latent_width {self.latent_width}: without cross-attention it must be {self.trunk_channels}, "
                "the trunk's channels"
            )
        return self


class R2Plus1DPerceiver(VideoModel):
    """R(2+1)D trunk and Perceiver head. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[R2Plus1DPerceiverConfig]] = R2Plus1DPerceiverConfig
    family: ClassVar[str] = "r2plus1d-perceiver"

    def __init__(self, config: R2Plus1DPerceiverConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.checkpointing = config.checkpointing
        self.trunk = R2Plus1DTrunk(config, num_blocks=config.num_blocks)
        if config.num_cross:
            self.queries = nn.Parameter(torch.randn(config.num_queries, config.latent_width))
        self.layers = nn.ModuleList()
        for _ in range(max(config.num_cross, 1)):
            if config.num_cross:
                self.layers.append(self._layer(config, cross=True))
            self.layers.extend(self._layer(config, cross=False) for _ in range(config.num_self))
        self.norm = nn.LayerNorm(config.latent_width)
        self.head = nn.Linear(config.latent_width, num_classes)

    def _layer(self, config: R2Plus1DPerceiverConfig, *, cross: bool) -> PerceiverLayer:
        return PerceiverLayer(
            config.latent_width,
            context_width=self.trunk.num_channels if cross else None,
            num_heads=config.cross_heads if cross else config.self_heads,
            head_width=config.head_width,
            dropout=config.dropout,
        )

    def no_weight_decay(self) -> set[str]:
        """The learned queries."""
        return {"queries"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, each residual block, each attention layer (queries with the first), head."""
        groups = dict(TRUNK_GROUPS_COARSE if coarse else TRUNK_GROUPS)
        groups["layers"] = [
            (r"^layers" if coarse else r"^layers\.(\d+)", None),
            (r"^queries", None if coarse else (0,)),
        ]
        return groups

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones.
        """
        self.check_input(video)
        return self.attend(self.trunk(video).flatten(2).transpose(1, 2))

    def attend(self, features: Tensor) -> Tensor:
        """Logits [B, num_classes] of the trunk's features [B, T' * H' * W', C]."""
        x = self.queries.repeat(len(features), 1, 1) if hasattr(self, "queries") else features
        x = run_blocks(self.layers, x, features, checkpointing=self.checkpointing)
        logits: Tensor = self.head(self.norm(x.mean(1)))
        return logits
