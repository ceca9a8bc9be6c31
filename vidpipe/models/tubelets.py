"""Cutting a clip into tubelets (blocks of frames x patch x patch) and embedding each as a token."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from vidpipe.models.encoder import TransformerConfig


class TubeletConfig(TransformerConfig):
    """Fields of transformers that read tubelets; `interpolate_positions` accepts any T, H and W that tubelets divide.

    Args:
        tubelet_frames: frames of a tubelet.
        patch_size: height and width of a tubelet.
        tubelet_init: how an image model's 2-D patch kernel becomes 3-D: at the central frame, or averaged.
    """

    tubelet_frames: int = Field(default=2, ge=1)
    patch_size: int = Field(default=16, ge=1)
    tubelet_init: Literal["central", "average"] = "central"

    @property
    def tubelet(self) -> tuple[int, int, int]:
        """(frames, height, width) of a tubelet."""
        return self.tubelet_frames, self.patch_size, self.patch_size

    @property
    def any_multiple_of(self) -> tuple[int, int, int] | None:
        """Tubelets, where positions are interpolated."""
        return self.tubelet if self.interpolate_positions else None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along (time, height, width)."""
        side = self.image_size // self.patch_size
        return self.num_frames // self.tubelet_frames, side, side

    @model_validator(mode="after")
    def _tubelets_divide_the_clip(self) -> Self:
        if self.num_frames % self.tubelet_frames:
            raise ValueError(f"num_frames {self.num_frames} is not a multiple of tubelet_frames {self.tubelet_frames}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        return self


class TubeletEmbed(nn.Module):
    """A linear projection of each tubelet, kept as a Conv3d so that published kernels load unchanged.

    Args:
        tubelet: (frames, height, width).
        width: size of a token.
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, kernel_size=tubelet, stride=tubelet)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens [B, T', H', W', width] of a clip [B, 3, T, H, W]."""
        tokens: Tensor = self.proj(video)
        return tokens.permute(0, 2, 3, 4, 1)
