"""A frozen image backbone for each frame, then a temporal transformer over the frames' features."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import timm
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from vidpipe.errors import ModelError
from vidpipe.models.backbone import make_backbone, num_features
from vidpipe.models.base import MERGE, VideoModel, init_transformer
from vidpipe.models.encoder import ClassTokenEncoder, TransformerConfig, drop_path_rates, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_time
from vidpipe.recipes import nearest


class ResNetTemporalConfig(TransformerConfig):
    """Configuration of `ResNetTemporal`; `interpolate_positions` accepts any number of frames.

    Args:
        backbone: name of any timm model; it is frozen.
        depth: blocks of the temporal transformer.
    """

    num_frames: int = Field(default=32, ge=1)
    backbone: str = "resnet50"
    depth: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @property
    def any_multiple_of(self) -> tuple[int, int, int] | None:
        """Any number of frames, where positions are interpolated."""
        return (1, self.image_size, self.image_size) if self.interpolate_positions else None

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if not timm.is_model(name.partition(".")[0]):
            raise ValueError(f"no timm model of that name{nearest(name, timm.list_models())}")
        return name


class ResNetTemporal(VideoModel):
    """Frozen backbone and temporal transformer. Input [B, 3, T, H, W] or features [B, T, D], logits [B, num_classes].

    The backbone has no gradients and stays in eval mode, so that its batch norms never change.
    """

    config_class: ClassVar[type[ResNetTemporalConfig]] = ResNetTemporalConfig
    family: ClassVar[str] = "resnet-temporal"
    position_axes: ClassVar[dict[str, PositionAxis]] = {"temporal.pos_embed": PositionAxis("time", num_prefix=1)}

    def __init__(self, config: ResNetTemporalConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.backbone = make_backbone(config.backbone, size=config.image_size)
        self.num_features = num_features(self.backbone)
        self.project = nn.Linear(self.num_features, config.width)
        blocks = pre_norm_blocks(config, drop_path_rates(config.drop_path, config.depth))
        self.temporal = ClassTokenEncoder(config, blocks, num_tokens=config.num_frames)
        self.head = nn.Linear(config.width, num_classes)
        for part in (self.project, self.temporal, self.head):
            init_transformer(part)

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Positions and class token."""
        return {"temporal.cls_token", "temporal.pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Backbone (frozen), projection and positions, each temporal block, head."""
        return {
            "backbone": r"^backbone",
            "stem": r"^project|^temporal\.(?:cls_token|pos_embed)",
            "blocks": [
                (r"^temporal\.blocks" if coarse else r"^temporal\.blocks\.(\d+)", None),
                (r"^temporal\.norm", MERGE),
            ],
        }

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W], or of features [B, T, D] that `extract_features` gave.

        Raises:
            ModelError: T, H or W, or the features, are not the configured ones.
        """
        return self.classify(video if video.ndim == 3 else self.extract_features(video))

    def extract_features(self, video: Tensor) -> Tensor:
        """The backbone's pooled features of each frame: [B, T, D], without gradients."""
        self.check_input(video)
        with torch.no_grad():
            features: Tensor = self.backbone(video.transpose(1, 2).flatten(0, 1))
        return features.view(len(video), video.shape[2], self.num_features)

    def classify(self, features: Tensor) -> Tensor:
        """Logits of frame features [B, T, D]."""
        length = features.shape[1]
        if features.shape[2] != self.num_features or (self.any_multiple_of is None and length != self.clip_shape[0]):
            raise ModelError(
                f"{type(self).__name__}: expected features [B, {self.clip_shape[0]}, {self.num_features}], "
                f"got {list(features.shape)}"
            )
        positions = resample_time(self.temporal.pos_embed, length, num_prefix=1)
        logits: Tensor = self.head(self.temporal(self.project(features), positions))
        return logits
