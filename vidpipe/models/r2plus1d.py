"""R(2+1)D: a ResNet whose 3-D convolutions are split into space and time, of torchvision's blocks.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, cast

import torch
import torch.utils.checkpoint
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from vidpipe.models.base import ModelConfig, VideoModel, run_blocks

_STEM_CHANNELS = 45


class TrunkConfig(ModelConfig):
    """Fields of models that hold an `R2Plus1DTrunk`; the defaults are R(2+1)D-18.

    Args:
        image_size: H and W of the input clip.
        layers: residual blocks of the four stages; (3, 4, 6, 3) is R(2+1)D-34.
        width: channels of the first stage; each following one has twice as many.
        caffe2: shaped as IG65M's weights are, which come from Caffe2: the second convolutions of blocks that halve the picture
            are a little wider than torchvision's, and batch norms have an epsilon of 1e-3.
        any_size: accept any T, H and W.
    """

    image_size: int = Field(default=112, ge=8)
    layers: tuple[int, int, int, int] = (2, 2, 2, 2)
    width: int = Field(default=64, ge=1)
    caffe2: bool = False
    any_size: bool = False

    @property
    def any_multiple_of(self) -> tuple[int, int, int] | None:
        """Anything, where that is asked for."""
        return (1, 1, 1) if self.any_size else None

    @model_validator(mode="after")
    def _layers_positive(self) -> TrunkConfig:
        if min(self.layers) < 1:
            raise ValueError(f"layers {self.layers}: expected at least one block in each stage")
        return self


class R2Plus1DConfig(TrunkConfig):
    """Configuration of `R2Plus1D`.

    Args:
        dropout: before the classifier.
    """

    dropout: float = Field(default=0.0, ge=0, lt=1)


class R2Plus1DTrunk(nn.Module):
    """Stem and the first residual blocks, [B, 3, T, H, W] to [B, C, T', H', W']. Names are torchvision's.

    Args:
        config: sizes.
        num_blocks: how many of the residual blocks to keep, counted over all stages; None keeps all.
    """

    def __init__(self, config: TrunkConfig, *, num_blocks: int | None = None) -> None:
        super().__init__()
        self.checkpointing = config.checkpointing
        self.stem = nn.Sequential(
            nn.Conv3d(3, _STEM_CHANNELS, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(_STEM_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv3d(_STEM_CHANNELS, config.width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(config.width),
            nn.ReLU(inplace=True),
        )
        left = sum(config.layers) if num_blocks is None else num_blocks
        channels = config.width
        self.num_stages = 0
        for stage, length in enumerate(config.layers):
            planes, stride = config.width * 2**stage, 1 if stage == 0 else 2
            blocks = [
                self._block(channels if i == 0 else planes, planes, stride if i == 0 else 1, caffe2=config.caffe2)
                for i in range(length)
            ]
            if left > 0:
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks[:left]))
                self.num_stages, channels = stage + 1, planes
            left -= length
        self.num_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d) and config.caffe2:
                module.eps = 1e-3

    @staticmethod
    def _block(inplanes: int, planes: int, stride: int, *, caffe2: bool) -> nn.Module:
        downsample = None
        if stride != 1 or inplanes != planes:
            conv = nn.Conv3d(inplanes, planes, kernel_size=1, stride=(stride, stride, stride), bias=False)
            downsample = nn.Sequential(conv, nn.BatchNorm3d(planes))
        block: nn.Module = BasicBlock(inplanes, planes, Conv2Plus1D, stride, downsample)
        if caffe2 and inplanes != planes:
            second = cast(nn.Sequential, block.get_submodule("conv2"))
            second[0] = Conv2Plus1D(planes, planes, 9 * planes // 4)
        return block

    def forward(self, video: Tensor) -> Tensor:
        """Features [B, C, T', H', W'] of clips [B, 3, T, H, W]."""
        x: Tensor = self.stem(video)
        for stage in range(1, self.num_stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = self._recomputed(block, x) if self.checkpointing and torch.is_grad_enabled() else block(x)
        return x

    @staticmethod
    def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # what is compiled has its statistics among the forward pass's results
            return run_blocks([block], x, checkpointing=True)
        result: Tensor = torch.utils.checkpoint.checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _running_statistics_kept(block))
        )
        return result


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """While a block's activations are recomputed, its batch norms must not count the same batch a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm3d)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


TRUNK_GROUPS: dict[str, Any] = {"stem": r"^trunk\.stem", "blocks": r"^trunk\.layer(\d+)\.(\d+)"}
"""Layers of a trunk for layer decay: the stem and each residual block."""

TRUNK_GROUPS_COARSE: dict[str, Any] = {"stem": r"^trunk\.stem", "blocks": r"^trunk\.layer(\d+)"}


class R2Plus1D(VideoModel):
    """R(2+1)D classifier. Input [B, 3, T, H, W], logits [B, num_classes]."""

    config_class: ClassVar[type[R2Plus1DConfig]] = R2Plus1DConfig
    family: ClassVar[str] = "r2plus1d"

    def __init__(self, config: R2Plus1DConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.trunk = R2Plus1DTrunk(config)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(self.trunk.num_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)  # as torchvision's video models
        nn.init.zeros_(self.fc.bias)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, each residual block, head."""
        return TRUNK_GROUPS_COARSE if coarse else TRUNK_GROUPS

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, num_classes] of clips [B, 3, T, H, W].

        Raises:
            ModelError: T, H or W are not the configured ones.
        """
        self.check_input(video)
        logits: Tensor = self.fc(self.dropout(self.trunk(video).mean((2, 3, 4))))
        return logits
