"""A transformer encoder that reads a sequence out through a class token, of timm's blocks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vidpipe.models.base import run_blocks

# Partials stand in for classes: timm calls them like one.
GELU_TANH = cast(type[nn.Module], partial(nn.GELU, approximate="tanh"))
LAYER_NORM = cast(type[nn.Module], partial(nn.LayerNorm, eps=1e-6))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth rising linearly from 0 at the first block to `rate` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def pre_norm_blocks(
    width: int,
    *,
    num_heads: int,
    mlp_ratio: float,
    rates: Iterable[float],
    dropout: float = 0.0,
    act_layer: type[nn.Module] = GELU_TANH,
) -> list[nn.Module]:
    """timm's pre-norm ViT blocks with qkv biases and a layer norm of epsilon 1e-6.

    Args:
        width: size of a token.
        rates: stochastic depth of each block; their number is the depth.
    """
    return [
        Block(
            width,
            num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            proj_drop=dropout,
            drop_path=rate,
            act_layer=act_layer,
            norm_layer=LAYER_NORM,
        )
        for rate in rates
    ]


class ClassTokenEncoder(nn.Module):
    """Class token, learned positions, blocks, layer norm; gives the class token.

    Args:
        blocks: modules from [B, 1 + N, width] to the same.
        width: size of a token.
        num_tokens: N, without the class token.
        dropout: after the positions were added.
        checkpointing: recompute the blocks' activations in the backward pass.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        *,
        width: int,
        num_tokens: int,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_tokens, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = LAYER_NORM(width)
        self.checkpointing = checkpointing

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """The class token of each sequence.

        Args:
            tokens: [B, N, width].
            positions: [1, 1 + N, width] instead of the learned ones.

        Returns:
            [B, width].
        """
        cls_token = self.cls_token.expand(tokens.shape[0], -1, -1)
        x = torch.cat([cls_token, tokens], dim=1) + (self.pos_embed if positions is None else positions)
        x = run_blocks(self.blocks, self.dropout(x), checkpointing=self.checkpointing)
        # The norm is per token, and the class token is all that leaves.
        result: Tensor = self.norm(x[:, 0])
        return result
