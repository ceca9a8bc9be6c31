"""Perceiver blocks: learned queries that read a long sequence by cross-attention and talk by self-attention.

Jaegle et al., "Perceiver: General Perception with Iterative Attention" (2021), section 3.
"""

from __future__ import annotations

from timm.layers.mlp import GluMlp
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Pre-norm multi-head attention with bias-free queries, keys and values.

    Args:
        width: size of a query token.
        context_width: size of a context token; None is self-attention.
        num_heads: attention heads.
        head_width: channels of a head.
        dropout: on the attention weights.
    """

    def __init__(
        self, width: int, *, context_width: int | None = None, num_heads: int, head_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.norm_context = None if context_width is None else nn.LayerNorm(context_width)
        self.to_q = nn.Linear(width, num_heads * head_width, bias=False)
        self.to_kv = nn.Linear(context_width or width, 2 * num_heads * head_width, bias=False)
        self.to_out = nn.Linear(num_heads * head_width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """What `x` [B, N, width] reads from `context` [B, M, context_width], or (self-attention) from itself."""
        x = self.norm(x)
        source = x if self.norm_context is None else self.norm_context(context)
        q = self.to_q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        kv = self.to_kv(source).unflatten(2, (2, self.num_heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        result: Tensor = self.to_out(x.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    """Pre-norm MLP with a GELU gate (GEGLU), hidden size four widths.

    Args:
        width: size of a token.
        dropout: after the MLP.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = GluMlp(width, hidden_features=8 * width, act_layer=nn.GELU, drop=(0.0, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, width] to the same."""
        result: Tensor = self.mlp(self.norm(x))
        return result


class PerceiverLayer(nn.Module):
    """Attention, then a feed-forward part, each with a residual.

    Args:
        width: size of a token.
        context_width: as `Attention` takes it.
        num_heads: attention heads.
        head_width: channels of a head.
        dropout: in both parts.
    """

    def __init__(
        self, width: int, *, context_width: int | None = None, num_heads: int, head_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attn = Attention(
            width, context_width=context_width, num_heads=num_heads, head_width=head_width, dropout=dropout
        )
        self.ff = FeedForward(width, dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens [B, N, width] to the same, reading from `context` (cross-attention) or from themselves."""
        x = x + self.attn(x, context)
        result: Tensor = x + self.ff(x)
        return result
