"""One transformer block of LLaMA without rotary positions and causal mask, for use inside a vision model.

Touvron et al., "LLaMA" (2023), section 2.2: RMSNorm before each part, no biases, SwiGLU.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LlamaBlock(nn.Module):
    """Pre-norm self-attention and SwiGLU, [B, N, width] to the same.

    Without rotary positions the order of channels within a head doesn't matter as long as queries and keys share it, so
    the original weights and Hugging Face's (which permute both) give the same result.

    Args:
        width: size of a token (LLaMA 7B: 4096).
        num_heads: attention heads (32).
        hidden: hidden size of the MLP (11008).
    """

    def __init__(self, width: int, *, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.wq = nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, width, bias=False)
        self.wv = nn.Linear(width, width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, width] to the same, attending to all."""
        h = self.attention_norm(x)
        q, k, v = (layer(h).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer in (self.wq, self.wk, self.wv))
        x = x + self.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.ffn_norm(x)
        result: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return result
