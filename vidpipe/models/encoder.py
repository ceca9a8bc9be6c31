"""A transformer encoder that reads a sequence out through a class token, of timm's blocks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Self, cast

import torch
from pydantic import Field, model_validator
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vidpipe.models.base import ModelConfig, run_blocks

# Partials stand in for classes: timm calls them like one.
GELU_TANH = cast(type[nn.Module], partial(nn.GELU, approximate="tanh"))
LAYER_NORM = cast(type[nn.Module], partial(nn.LayerNorm, eps=1e-6))


def check_heads(width: int, num_heads: int) -> None:
    """Raise ValueError unless heads divide the width."""
    if width % num_heads:
        raise ValueError(f"width {width} is not a multiple of the number of heads {num_heads}")


class TransformerConfig(ModelConfig):
    """Fields of models that hold a transformer; the defaults are ViT-B.

    Args:
        width: size of a token.
        num_heads: attention heads of each block.
        mlp_ratio: hidden size of an MLP, in widths.
        dropout: after positions, attention projections and in MLPs.
        drop_path: stochastic depth of the last block; it rises linearly over all blocks.
        interpolate_positions: accept other clips than the configured ones, with interpolated positions.
    """

    width: int = Field(default=768, ge=1)
    num_heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    interpolate_positions: bool = False

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        check_heads(self.width, self.num_heads)
        return self


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth rising linearly from 0 at the first block to `rate` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def pre_norm_blocks(
    config: TransformerConfig, rates: Iterable[float], *, act_layer: type[nn.Module] = GELU_TANH
) -> list[nn.Module]:
    """timm's pre-norm ViT blocks with qkv biases and a layer norm of epsilon 1e-6.

    Args:
        rates: stochastic depth of each block; their number is the depth.
    """
    return [
        Block(
            config.width,
            config.num_heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=True,
            proj_drop=config.dropout,
            drop_path=rate,
            act_layer=act_layer,
            norm_layer=LAYER_NORM,
        )
        for rate in rates
    ]


class ClassTokenEncoder(nn.Module):
    """Class token, learned positions, blocks, layer norm; gives the class token.

    Args:
        config: sizes.
        blocks: modules from [B, 1 + N, width] to the same.
        num_tokens: N, without the class token.
    """

    def __init__(self, config: TransformerConfig, blocks: Iterable[nn.Module], *, num_tokens: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_tokens, config.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = LAYER_NORM(config.width)
        self.checkpointing = config.checkpointing

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The class token of each sequence.

        Args:
            tokens: [B, N, width].
            positions: [1, 1 + N, width]: the learned ones, perhaps interpolated.

        Returns:
            [B, width].
        """
        cls_token = self.cls_token.expand(tokens.shape[0], -1, -1)
        x = torch.cat([cls_token, tokens], dim=1) + positions
        x = run_blocks(self.blocks, self.dropout(x), checkpointing=self.checkpointing)
        # The norm is per token, and the class token is all that leaves.
        result: Tensor = self.norm(x[:, 0])
        return result
