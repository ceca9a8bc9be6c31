"""ViViT, model 1: one encoder over all tubelets of the clip at once (Arnab et al., 2021, section 3.3, "Spatio-temporal
attention"). This is what Hugging Face's ViViT checkpoints hold."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from vidpipe.models.base import MERGE, VideoModel, init_transformer
from vidpipe.models.encoder import ClassTokenEncoder, drop_path_rates, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_space_time
from vidpipe.models.tubelets import TubeletConfig, TubeletEmbed, check_heads


class ViViTJointConfig(TubeletConfig):
    """Configuration of `ViViTJoint`; the defaults are ViViT-B/16x2.

    Args:
        width: size of a token.
        depth: blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden size of an MLP, in widths.
        dropout: after positions, attention projections and in MLPs.
        drop_path: stochastic depth of the last block; it rises linearly.
        tubelet_init: how an image model's 2-D patch kernel becomes 3-D: at the central frame, or averaged.
    """

    num_frames: int = Field(default=32, ge=1)
    width: int = Field(default=768, ge=1)
    depth: int = Field(default=12, ge=1)
    num_heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    tubelet_init: Literal["central", "average"] = "central"

    @model_validator(mode="after")
    def _divisible(self) -> ViViTJointConfig:
        self.check_tubelets()
        check_heads(self.width, self.num_heads)
        return self


class ViViTJoint(VideoModel):
    """ViViT with joint space-time attention. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[ViViTJointConfig]] = ViViTJointConfig
    family: ClassVar[str] = "vivit-joint"
    position_axes: ClassVar[dict[str, PositionAxis]] = {"encoder.pos_embed": PositionAxis("space-time", num_prefix=1)}

    def __init__(self, config: ViViTJointConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.tubelet = config.tubelet
        self.grid = config.grid
        self.interpolate_positions = config.interpolate_positions
        self.patch_embed = TubeletEmbed(config.tubelet, config.width)
        frames, rows, columns = config.grid
        self.encoder = ClassTokenEncoder(
            pre_norm_blocks(
                config.width,
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                dropout=config.dropout,
                rates=drop_path_rates(config.drop_path, config.depth),
            ),
            width=config.width,
            num_tokens=frames * rows * columns,
            dropout=config.dropout,
            checkpointing=config.checkpointing,
        )
        self.head = nn.Linear(config.width, num_classes)
        init_transformer(self)

    def no_weight_decay(self) -> set[str]:
        """Positions and class token."""
        return {"encoder.cls_token", "encoder.pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tubelets and positions, each block, head."""
        return {
            "stem": r"^patch_embed|^encoder\.(?:cls_token|pos_embed)",
            "blocks": [
                (r"^encoder\.blocks" if coarse else r"^encoder\.blocks\.(\d+)", None),
                (r"^encoder\.norm", MERGE),
            ],
        }

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones (with interpolated positions: not multiples of a tubelet).
        """
        self.check_input(video, any_multiple_of=self.tubelet if self.interpolate_positions else None)
        x = self.patch_embed(video)
        positions = None
        if self.interpolate_positions:
            _, frames, rows, columns, _ = x.shape
            positions = resample_space_time(self.encoder.pos_embed, self.grid, (frames, rows, columns), num_prefix=1)
        logits: Tensor = self.head(self.encoder(x.flatten(1, 3), positions))
        return logits
