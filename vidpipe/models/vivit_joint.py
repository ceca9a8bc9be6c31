"""ViViT, model 1: one encoder over all tubelets of the clip at once (Arnab et al., 2021, section 3.3, "Spatio-temporal
attention"). This is what Hugging Face's ViViT checkpoints hold."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from vidpipe.models.base import MERGE, VideoModel, init_transformer
from vidpipe.models.encoder import ClassTokenEncoder, drop_path_rates, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_space_time
from vidpipe.models.tubelets import TubeletConfig, TubeletEmbed


class ViViTJointConfig(TubeletConfig):
    """Configuration of `ViViTJoint`; the defaults are ViViT-B/16x2.

    Args:
        depth: blocks.
    """

    num_frames: int = Field(default=32, ge=1)
    depth: int = Field(default=12, ge=1)


class ViViTJoint(VideoModel):
    """ViViT with joint space-time attention. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[ViViTJointConfig]] = ViViTJointConfig
    family: ClassVar[str] = "vivit-joint"
    position_axes: ClassVar[dict[str, PositionAxis]] = {"encoder.pos_embed": PositionAxis("space-time", num_prefix=1)}

    def __init__(self, config: ViViTJointConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.grid = config.grid
        self.patch_embed = TubeletEmbed(config.tubelet, config.width)
        frames, rows, columns = config.grid
        blocks = pre_norm_blocks(config, drop_path_rates(config.drop_path, config.depth))
        self.encoder = ClassTokenEncoder(config, blocks, num_tokens=frames * rows * columns)
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
        self.check_input(video)
        x = self.patch_embed(video)
        _, frames, rows, columns, _ = x.shape
        positions = resample_space_time(self.encoder.pos_embed, self.grid, (frames, rows, columns), num_prefix=1)
        logits: Tensor = self.head(self.encoder(x.flatten(1, 3), positions))
        return logits
