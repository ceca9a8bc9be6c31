"""VideoMAE's ViT with one frozen block of a language model after its own blocks.

Pang et al., "Frozen Transformers in Language Models Are Effective Visual Encoder Layers" (2024), section 3.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from vidpipe.models.base import run_blocks
from vidpipe.models.encoder import check_heads
from vidpipe.models.llama import LlamaBlock
from vidpipe.models.videomae import VideoMAE, VideoMAEConfig


class ViTLlamaConfig(VideoMAEConfig):
    """Configuration of `ViTLlama`; the defaults are ViT-B and LLaMA 7B.

    Args:
        llama_width: size of a token in the frozen block.
        llama_heads: attention heads of the frozen block.
        llama_hidden: hidden size of the frozen block's MLP.
        llama_layer: which of the language model's blocks is loaded from its checkpoint.
    """

    llama_width: int = Field(default=4096, ge=1)
    llama_heads: int = Field(default=32, ge=1)
    llama_hidden: int = Field(default=11008, ge=1)
    llama_layer: int = Field(default=15, ge=0)

    @model_validator(mode="after")
    def _llama_divisible(self) -> ViTLlamaConfig:
        check_heads(self.llama_width, self.llama_heads)
        return self


class FrozenLlama(nn.Module):
    """A block and a final RMSNorm (left at ones) that no optimiser changes.

    Args:
        config: sizes.
    """

    def __init__(self, config: ViTLlamaConfig) -> None:
        super().__init__()
        self.block = LlamaBlock(config.llama_width, num_heads=config.llama_heads, hidden=config.llama_hidden)
        self.norm = nn.RMSNorm(config.llama_width, eps=1e-6)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, llama_width] to the same; gradients pass through to them."""
        result: Tensor = self.norm(self.block(x))
        return result


class ViTLlama(VideoMAE):
    """VideoMAE's classifier with a frozen LLaMA block. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[ViTLlamaConfig]] = ViTLlamaConfig
    family: ClassVar[str] = "vit-llama"
    frozen_parts: ClassVar[tuple[str, ...]] = ("llama.",)  # 0.8 GB

    def __init__(self, config: ViTLlamaConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.llama_layer = config.llama_layer
        self.to_llama = nn.Linear(config.width, config.llama_width, bias=False)
        self.llama = FrozenLlama(config)
        self.from_llama = nn.Linear(config.llama_width, config.width, bias=False)
        for layer in (self.to_llama, self.from_llama):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def refine(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, width] through the frozen block and back."""
        x = run_blocks([self.llama], self.to_llama(tokens), checkpointing=self.encoder.checkpointing)
        result: Tensor = self.from_llama(x)
        return result
