"""ViViT, model 2: a spatial encoder per tubelet-frame, then a temporal encoder over their class tokens, or their mean.

Arnab et al., "ViViT: A Video Vision Transformer" (2021), section 3.3 "Factorised encoder", section 3.4 for the
initialisation of tubelets from an image model, and section 4.2 for the baseline that averages frames.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from vidpipe.models.base import MERGE, VideoModel, init_linear
from vidpipe.models.encoder import ClassTokenEncoder, drop_path_rates, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_space, resample_time
from vidpipe.models.tubelets import TubeletConfig, TubeletEmbed


class ViViTConfig(TubeletConfig):
    """Configuration of `ViViT`; the defaults are ViViT-B/16x2.

    Args:
        spatial_depth: blocks of the spatial encoder.
        temporal_depth: blocks of the temporal encoder; 0 has none, and classifies the mean of the tubelet-frames' tokens,
            whose order then says nothing.
        temporal_init: `fresh` starts the temporal encoder at random, `copy` from the first blocks of the image model that
            the spatial encoder is filled from.
    """

    num_frames: int = Field(default=32, ge=1)
    spatial_depth: int = Field(default=12, ge=1)
    temporal_depth: int = Field(default=4, ge=0)
    temporal_init: Literal["fresh", "copy"] = "fresh"


class ViViT(VideoModel):
    """ViViT factorised encoder. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[ViViTConfig]] = ViViTConfig
    family: ClassVar[str] = "vivit"
    position_axes: ClassVar[dict[str, PositionAxis]] = {
        "spatial.pos_embed": PositionAxis("space", num_prefix=1),
        "temporal.pos_embed": PositionAxis("time", num_prefix=1),
    }

    def __init__(self, config: ViViTConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.patch_embed = TubeletEmbed(config.tubelet, config.width)
        rates = drop_path_rates(config.drop_path, config.spatial_depth + config.temporal_depth)
        frames, rows, columns = config.grid
        blocks = self._spatial_blocks(config, rates[: config.spatial_depth])
        self.spatial = ClassTokenEncoder(config, blocks, num_tokens=rows * columns)
        self.temporal: ClassTokenEncoder | None = None
        if config.temporal_depth:
            blocks = self._temporal_blocks(config, rates[config.spatial_depth :])
            self.temporal = ClassTokenEncoder(config, blocks, num_tokens=frames)
        self.head = nn.Linear(config.width, num_classes)
        self._init_weights()

    def _spatial_blocks(self, config: ViViTConfig, rates: list[float]) -> list[nn.Module]:
        return pre_norm_blocks(config, rates)

    def _temporal_blocks(self, config: ViViTConfig, rates: list[float]) -> list[nn.Module]:
        return self._spatial_blocks(config, rates)

    def _init_weights(self) -> None:
        init_linear(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        if self.patch_embed.proj.bias is not None:
            nn.init.zeros_(self.patch_embed.proj.bias)
        nn.init.zeros_(self.head.weight)

    def no_weight_decay(self) -> set[str]:
        """Positions and class tokens."""
        encoders = ("spatial", "temporal") if self.temporal else ("spatial",)
        return {f"{encoder}.{name}" for encoder in encoders for name in ("cls_token", "pos_embed")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tubelets and spatial positions, each spatial block, each temporal block (where there are any), head."""
        if coarse:
            return {"stem": r"^patch_embed", "spatial": r"^spatial", "temporal": r"^temporal"}
        return {
            "stem": r"^patch_embed|^spatial\.(?:cls_token|pos_embed)",
            "spatial": [(r"^spatial\.blocks\.(\d+)", None), (r"^spatial\.norm", MERGE)],
            "temporal": [
                (r"^temporal\.blocks\.(\d+)", None),
                (r"^temporal\.(?:cls_token|pos_embed)", (0,)),
                (r"^temporal\.norm", MERGE),
            ],
        }

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones (with interpolated positions: not multiples of a tubelet).
        """
        return self.classify(self.encode_frames(video))

    def encode_frames(self, video: Tensor) -> Tensor:
        """The spatial encoder's class token of each tubelet-frame: [B, T', width]."""
        self.check_input(video)
        x = self.patch_embed(video)
        batch, frames, rows, columns, width = x.shape
        positions = resample_space(self.spatial.pos_embed, (rows, columns), num_prefix=1)
        x = x.reshape(batch * frames, rows * columns, width)
        result: Tensor = self.spatial(x, positions).view(batch, frames, width)
        return result

    def classify(self, frame_tokens: Tensor) -> Tensor:
        """Logits from the tubelet-frames' tokens [B, T', width]."""
        logits: Tensor = self.head(self._over_time(frame_tokens))
        return logits

    def _over_time(self, frame_tokens: Tensor) -> Tensor:
        """One token of each clip [B, width]."""
        if self.temporal is None:
            return frame_tokens.mean(dim=1)
        positions = resample_time(self.temporal.pos_embed, frame_tokens.shape[1], num_prefix=1)
        token: Tensor = self.temporal(frame_tokens, positions)
        return token
