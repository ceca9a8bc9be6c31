"""Mini-ViViT: ViViT's factorised encoder whose blocks each run several times, with norms and head mixing of their own.

The sharing is MiniViT's: Zhang et al., "MiniViT: Compressing Vision Transformers with Weight Multiplexing" (2022),
section 3.2. Attention projections and MLP are shared by successive layers; each layer keeps its two norms and two linear
mixes of attention heads, before and after the softmax.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.models.encoder import GELU_TANH, LAYER_NORM
from vidpipe.models.vivit import ViViT, ViViTConfig


class MiniViViTConfig(ViViTConfig):
    """Configuration of `MiniViViT`.

    Args:
        spatial_share: layers of the spatial encoder that share one block.
        temporal_share: layers of the temporal encoder that share one block.
        head_mixing: mix attention heads before and after the softmax, in encoders that share.
    """

    spatial_share: int = Field(default=2, ge=1)
    temporal_share: int = Field(default=1, ge=1)
    head_mixing: bool = True

    @model_validator(mode="after")
    def _shareable(self) -> MiniViViTConfig:
        for name in ("spatial", "temporal"):
            depth, share = getattr(self, f"{name}_depth"), getattr(self, f"{name}_share")
            if depth % share:
                raise ValueError(f"{name}_depth {depth} is not a multiple of {name}_share {share}")
        return self


class SharedAttention(nn.Module):
    """Self-attention of several layers, each with its own mixing of heads.

    Args:
        width: size of a token.
        num_heads: attention heads.
        num_layers: layers that share the projections.
        head_mixing: whether heads are mixed; the mixes start as identities.
        dropout: after the output projection.
    """

    def __init__(self, width: int, *, num_heads: int, num_layers: int, head_mixing: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.head_mixing = head_mixing
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)
        if head_mixing:
            identities = torch.eye(num_heads).repeat(num_layers, 1, 1)
            self.mix_logits = nn.Parameter(identities)
            self.mix_weights = nn.Parameter(identities.clone())

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """Tokens [B, N, width] to the same, as layer number `layer` of those that share."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.head_mixing:
            logits = (q * self.scale) @ k.transpose(-2, -1)
            weights = self._mix(self.mix_logits[layer], logits).softmax(dim=-1)
            x = self._mix(self.mix_weights[layer], weights) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))
        return result

    @staticmethod
    def _mix(matrix: Tensor, attention: Tensor) -> Tensor:
        """Each head of [B, heads, N, N] as a weighted sum of all heads."""
        return (matrix @ attention.flatten(2)).view_as(attention)


class SharedBlock(nn.Module):
    """Pre-norm layers in a row that share attention and MLP.

    Args:
        config: sizes.
        rates: stochastic depth of each layer; their number is the number of layers.
    """

    def __init__(self, config: MiniViViTConfig, rates: list[float]) -> None:
        super().__init__()
        width, num_layers = config.width, len(rates)
        self.attn = SharedAttention(
            width,
            num_heads=config.num_heads,
            num_layers=num_layers,
            head_mixing=config.head_mixing and num_layers > 1,
            dropout=config.dropout,
        )
        self.mlp = Mlp(width, int(width * config.mlp_ratio), act_layer=GELU_TANH, drop=config.dropout)
        self.norm1 = nn.ModuleList(LAYER_NORM(width) for _ in rates)
        self.norm2 = nn.ModuleList(LAYER_NORM(width) for _ in rates)
        self.drop_path = nn.ModuleList(DropPath(rate) if rate > 0 else nn.Identity() for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, width] through all layers of the block."""
        for layer, (norm1, norm2, drop_path) in enumerate(zip(self.norm1, self.norm2, self.drop_path, strict=True)):
            x = x + drop_path(self.attn(norm1(x), layer))
            x = x + drop_path(self.mlp(norm2(x)))
        return x


class MiniViViT(ViViT):
    """Weight-multiplexed ViViT factorised encoder. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[MiniViViTConfig]] = MiniViViTConfig
    family: ClassVar[str] = "mini-vivit"

    def _spatial_blocks(self, config: ViViTConfig, rates: list[float]) -> list[nn.Module]:
        return self._shared_blocks(config, rates, temporal=False)

    def _temporal_blocks(self, config: ViViTConfig, rates: list[float]) -> list[nn.Module]:
        return self._shared_blocks(config, rates, temporal=True)

    @staticmethod
    def _shared_blocks(config: ViViTConfig, rates: list[float], *, temporal: bool) -> list[nn.Module]:
        assert isinstance(config, MiniViViTConfig)
        share = config.temporal_share if temporal else config.spatial_share
        return [SharedBlock(config, rates[i : i + share]) for i in range(0, len(rates), share)]

    def no_weight_decay(self) -> set[str]:
        """Positions, class tokens and mixes of heads, which decay would pull away from the identity."""
        mixes = {name for name, _ in self.named_parameters() if name.endswith((".mix_logits", ".mix_weights"))}
        return super().no_weight_decay() | mixes
