"""R(2+1)D with late temporal modelling: a transformer encoder over time instead of temporal pooling.

Kalfaoglu et al., "Late Temporal Modeling in 3D CNN Architectures with BERT for Action Recognition" (2020), section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from vidpipe.models.base import VideoModel, init_transformer
from vidpipe.models.encoder import ClassTokenEncoder, TransformerConfig, check_heads, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_time
from vidpipe.models.r2plus1d import TRUNK_GROUPS, TRUNK_GROUPS_COARSE, R2Plus1DTrunk, TrunkConfig

_TEMPORAL_STRIDE = 8


class R2Plus1DBertConfig(TrunkConfig):
    """Configuration of `R2Plus1DBert`.

    Args:
        layers: residual blocks of the four stages; (2, 2, 2, 2) is R(2+1)D-18.
        bert_depth: transformer blocks.
        bert_heads: attention heads of each.
        bert_mlp_ratio: hidden size of an MLP, in channels of the trunk.
        bert_dropout: after positions, attention projections and in MLPs.
        head_dropout: before the classifier.
        any_size: accept any T, H and W, with interpolated positions.
    """

    num_frames: int = Field(default=32, ge=1)
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    bert_depth: int = Field(default=1, ge=1)
    bert_heads: int = Field(default=8, ge=1)
    bert_mlp_ratio: float = Field(default=4.0, gt=0)
    bert_dropout: float = Field(default=0.1, ge=0, lt=1)
    head_dropout: float = Field(default=0.8, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> R2Plus1DBertConfig:
        check_heads(self.width * 8, self.bert_heads)
        return self


class R2Plus1DBert(VideoModel):
    """R(2+1)D trunk, spatial average, transformer over time. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[R2Plus1DBertConfig]] = R2Plus1DBertConfig
    family: ClassVar[str] = "r2plus1d-bert"
    position_axes: ClassVar[dict[str, PositionAxis]] = {"bert.pos_embed": PositionAxis("time", num_prefix=1)}

    def __init__(self, config: R2Plus1DBertConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.trunk = R2Plus1DTrunk(config)
        width = self.trunk.num_channels
        bert = TransformerConfig(
            width=width,
            num_heads=config.bert_heads,
            mlp_ratio=config.bert_mlp_ratio,
            dropout=config.bert_dropout,
            checkpointing=config.checkpointing,
        )
        blocks = pre_norm_blocks(bert, [0.0] * config.bert_depth, act_layer=nn.GELU)
        self.bert = ClassTokenEncoder(bert, blocks, num_tokens=-(-config.num_frames // _TEMPORAL_STRIDE))
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.fc = nn.Linear(width, num_classes)
        init_transformer(self.bert)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def no_weight_decay(self) -> set[str]:
        """Positions and class token."""
        return {"bert.cls_token", "bert.pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, each residual block, the transformer, head."""
        return {**(TRUNK_GROUPS_COARSE if coarse else TRUNK_GROUPS), "bert": r"^bert"}

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones.
        """
        self.check_input(video)
        x = self.trunk(video).mean((3, 4)).transpose(1, 2)
        positions = resample_time(self.bert.pos_embed, x.shape[1], num_prefix=1)
        logits: Tensor = self.fc(self.head_dropout(self.bert(x, positions)))
        return logits
