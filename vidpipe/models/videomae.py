"""VideoMAE's ViT: joint space-time attention over tubelets, fixed positions, mean pooling.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training" (2022).
Attention has biases for queries and values, none for keys: exactly timm's BEiT block.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from timm.models.beit import Block
from torch import Tensor, nn

from vidpipe.models.base import VideoModel, init_transformer, run_blocks
from vidpipe.models.encoder import LAYER_NORM, drop_path_rates
from vidpipe.models.positions import resample_space_time, sine_positions
from vidpipe.models.tubelets import TubeletConfig, TubeletEmbed


class VideoMAEEncoderConfig(TubeletConfig):
    """Fields of models that hold a `VideoMAEEncoder`; the defaults are ViT-B.

    Args:
        depth: blocks.
    """

    depth: int = Field(default=12, ge=1)
    drop_path: float = Field(default=0.1, ge=0, lt=1)


class VideoMAEConfig(VideoMAEEncoderConfig):
    """Configuration of `VideoMAE`.

    Args:
        head_dropout: before the classifier.
        head_scale: factor on the classifier's initial weights.
    """

    head_dropout: float = Field(default=0.0, ge=0, lt=1)
    head_scale: float = Field(default=0.001, gt=0)


def beit_blocks(
    width: int, *, num_heads: int, mlp_ratio: float, rates: list[float], dropout: float = 0.0
) -> nn.ModuleList:
    """Pre-norm blocks with query and value biases."""
    return nn.ModuleList(
        Block(
            width,
            num_heads,
            qkv_bias=True,
            mlp_ratio=mlp_ratio,
            proj_drop=dropout,
            drop_path=rate,
            norm_layer=LAYER_NORM,
        )
        for rate in rates
    )


class VideoMAEEncoder(nn.Module):
    """Tubelets, fixed sine positions over the flattened (time, row, column) order, blocks.

    Args:
        config: sizes.
        final_norm: end with a layer norm.
    """

    positions: Tensor

    def __init__(self, config: VideoMAEEncoderConfig, *, final_norm: bool = False) -> None:
        super().__init__()
        self.grid = config.grid
        self.checkpointing = config.checkpointing
        self.patch_embed = TubeletEmbed(config.tubelet, config.width)
        self.blocks = beit_blocks(
            config.width,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            rates=drop_path_rates(config.drop_path, config.depth),
            dropout=config.dropout,
        )
        self.norm = LAYER_NORM(config.width) if final_norm else nn.Identity()
        frames, rows, columns = config.grid
        # Not in the state dict: published checkpoints don't hold them.
        self.register_buffer("positions", sine_positions(frames * rows * columns, config.width), persistent=False)

    def forward(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of a clip.

        Args:
            video: [B, 3, T, H, W]; another grid of tubelets than the configured one gets interpolated positions.
            visible: int64 [B, N'], the tubelets to encode; None encodes all.

        Returns:
            [B, N or N', width].
        """
        x = self.patch_embed(video)
        batch, frames, rows, columns, width = x.shape
        positions = resample_space_time(self.positions, self.grid, (frames, rows, columns), num_prefix=0)
        x = x.flatten(1, 3) + positions
        if visible is not None:
            x = x.gather(1, visible[:, :, None].expand(batch, -1, width))
        result: Tensor = self.norm(run_blocks(self.blocks, x, checkpointing=self.checkpointing))
        return result


class VideoMAE(VideoModel):
    """VideoMAE's classifier. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[VideoMAEConfig]] = VideoMAEConfig
    family: ClassVar[str] = "videomae"

    def __init__(self, config: VideoMAEConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.encoder = VideoMAEEncoder(config)
        self.fc_norm = LAYER_NORM(config.width)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(config.width, num_classes)
        init_transformer(self)
        with torch.no_grad():
            self.head.weight.mul_(config.head_scale)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tubelets, each block, then norm and head together, as the authors' layer decay has them."""
        return {
            "stem": r"^encoder\.patch_embed",
            "blocks": r"^encoder\.blocks" if coarse else r"^encoder\.blocks\.(\d+)",
        }

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones (with interpolated positions: not multiples of a tubelet).
        """
        self.check_input(video)
        x = self.fc_norm(self.refine(self.encoder(video)).mean(1))
        logits: Tensor = self.head(self.head_dropout(x))
        return logits

    def refine(self, tokens: Tensor) -> Tensor:
        """What a model built on this one does to the encoder's tokens [B, N, width] before they are averaged."""
        return tokens
