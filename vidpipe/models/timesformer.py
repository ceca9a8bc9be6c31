"""TimeSformer: attention over time, then over space, in every block.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?" (2021), section 3. Parameter names and
token order (rows, columns, time) are those of the authors' implementation, so that its checkpoints load unchanged.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from vidpipe.models.base import MERGE, VideoModel, init_transformer, run_blocks
from vidpipe.models.encoder import LAYER_NORM, drop_path_rates, pre_norm_blocks
from vidpipe.models.positions import PositionAxis, resample_space, resample_time
from vidpipe.models.tubelets import TubeletConfig, TubeletEmbed


class TimeSformerConfig(TubeletConfig):
    """Configuration of `TimeSformer`; the defaults are TimeSformer-B with divided attention.

    Args:
        attention: `divided` (time, then space), `joint` (both at once) or `space` (frames apart, averaged at the end).
        tubelet_frames: 1 embeds each frame by itself (a Conv2d); more embeds tubelets (a Conv3d).
        depth: blocks.
        temporal_init: `copy` starts temporal attention from an image model's spatial attention, behind a zero projection;
            `zero` starts its output projection at zero, behind an identity.
        class_token_init: `checkpoint` takes the class token of an image checkpoint; `normal` keeps a truncated normal one,
            for checkpoints (masked autoencoders) whose class token was never trained to classify.
    """

    num_frames: int = Field(default=8, ge=1)
    tubelet_frames: int = Field(default=1, ge=1)
    attention: Literal["divided", "joint", "space"] = "divided"
    depth: int = Field(default=12, ge=1)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    temporal_init: Literal["copy", "zero"] = "copy"
    class_token_init: Literal["checkpoint", "normal"] = "checkpoint"


class DividedBlock(nn.Module):
    """Temporal attention between the same patches of all frames, then spatial attention within each frame, then an MLP.

    Args:
        config: the model's configuration.
        rate: stochastic depth.
    """

    def __init__(self, config: TimeSformerConfig, rate: float) -> None:
        super().__init__()
        width, heads, drop = config.width, config.num_heads, config.dropout
        self.temporal_norm1 = LAYER_NORM(width)
        self.temporal_attn = Attention(width, heads, qkv_bias=True, proj_drop=drop)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = LAYER_NORM(width)
        self.attn = Attention(width, heads, qkv_bias=True, proj_drop=drop)
        self.norm2 = LAYER_NORM(width)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), drop=drop)
        self.drop_path = DropPath(rate) if rate > 0 else nn.Identity()

    def init_temporal(self, how: Literal["copy", "zero"]) -> None:
        """Make temporal attention add nothing at first.

        Only one of the two projections in a row may be zero: with both, neither would ever get a gradient.
        """
        zero, identity = (self.temporal_fc, None) if how == "copy" else (self.temporal_attn.proj, self.temporal_fc)
        for layer in (zero, identity):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        if identity is not None:
            nn.init.eye_(identity.weight)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Tokens [B, 1 + N*T, width] to the same; the first is the class token, time runs fastest."""
        batch, _, width = x.shape
        cls_token, patches = x[:, :1], x[:, 1:]
        num_patches = patches.shape[1] // num_frames

        by_patch = patches.reshape(batch * num_patches, num_frames, width)
        update = self.drop_path(self.temporal_attn(self.temporal_norm1(by_patch)))
        patches = patches + self.temporal_fc(update.reshape(batch, num_patches * num_frames, width))

        by_frame = patches.view(batch, num_patches, num_frames, width).transpose(1, 2)
        by_frame = by_frame.reshape(batch * num_frames, num_patches, width)
        cls_per_frame = cls_token.expand(-1, num_frames, -1).reshape(batch * num_frames, 1, width)
        update = self.drop_path(self.attn(self.norm1(torch.cat([cls_per_frame, by_frame], dim=1))))
        update = update.view(batch, num_frames, 1 + num_patches, width)
        cls_update = update[:, :, 0].mean(1, keepdim=True)
        patch_update = update[:, :, 1:].transpose(1, 2).reshape(batch, num_patches * num_frames, width)

        x = torch.cat([cls_token + cls_update, patches + patch_update], dim=1)
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result


class TimeSformer(VideoModel):
    """TimeSformer. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[TimeSformerConfig]] = TimeSformerConfig
    family: ClassVar[str] = "timesformer"
    position_axes: ClassVar[dict[str, PositionAxis]] = {
        "pos_embed": PositionAxis("space", num_prefix=1),
        "time_embed": PositionAxis("time", num_prefix=0),
    }

    def __init__(self, config: TimeSformerConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.attention = config.attention
        self.checkpointing = config.checkpointing
        frames, rows, columns = config.grid
        self.patch_embed = TubeletEmbed(config.tubelet, config.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + rows * columns, config.width))
        if config.attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, frames, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(self._blocks(config))
        self.norm = LAYER_NORM(config.width)
        self.head = nn.Linear(config.width, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        init_transformer(self)
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                block.init_temporal(config.temporal_init)

    def _blocks(self, config: TimeSformerConfig) -> list[nn.Module]:
        rates = drop_path_rates(config.drop_path, config.depth)
        if config.attention == "divided":
            return [DividedBlock(config, rate) for rate in rates]
        return pre_norm_blocks(config, rates, act_layer=nn.GELU)

    def no_weight_decay(self) -> set[str]:
        """Positions and class token."""
        return {"cls_token", "pos_embed", "time_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patches and positions, each block, head."""
        return {
            "stem": r"^patch_embed|^cls_token|^pos_embed|^time_embed",
            "blocks": [(r"^blocks" if coarse else r"^blocks\.(\d+)", None), (r"^norm", MERGE)],
        }

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones (with interpolated positions: not multiples of a tubelet).
        """
        self.check_input(video)
        x = self.patch_embed(video)
        batch, frames, rows, columns, width = x.shape
        pos_embed = resample_space(self.pos_embed, (rows, columns), num_prefix=1)
        x = x.flatten(2, 3) + pos_embed[:, None, 1:]
        cls_token = self.cls_token + pos_embed[:, :1]
        if self.attention == "space":
            x = torch.cat([cls_token.expand(batch * frames, -1, -1), x.flatten(0, 1)], dim=1)
            x = run_blocks(self.blocks, self.dropout(x), checkpointing=self.checkpointing)
            x = x.view(batch, frames, -1, width).mean(1)
        else:
            time_embed = resample_time(self.time_embed, frames, num_prefix=0)
            x = (x + time_embed[:, :, None]).transpose(1, 2).flatten(1, 2)
            x = self.dropout(torch.cat([cls_token.expand(batch, -1, -1), x], dim=1))
            args = (frames,) if self.attention == "divided" else ()
            x = run_blocks(self.blocks, x, *args, checkpointing=self.checkpointing)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits
