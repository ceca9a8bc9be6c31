"""Masked-autoencoder pretraining on video: encode the few visible tubelets, predict the pixels of the masked ones.

Tong et al., "VideoMAE" (2022), section 3: tube masking, an asymmetric encoder and decoder, normalised pixel targets.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.errors import ModelError
from vidpipe.models.base import MERGE, VideoModel, init_linear, run_blocks
from vidpipe.models.encoder import LAYER_NORM, check_heads, drop_path_rates
from vidpipe.models.positions import sine_positions
from vidpipe.models.videomae import VideoMAEEncoder, VideoMAEEncoderConfig, beit_blocks

_EPSILON = 1e-6


class VideoMAEPretrainConfig(VideoMAEEncoderConfig):
    """Configuration of `VideoMAEPretrain`; the defaults are ViT-B.

    Args:
        decoder_width: size of a token in the decoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        mask: `tube` hides the same patches in all frames, `frame` whole frames, `random` any tubelets.
        mask_ratio: share of tubelets that are hidden, rounded down to whole patches, frames or tubelets.
        normalize_targets: predict each tubelet's pixels normalised by its own mean and deviation, by channel.
        pixel_mean, pixel_std: what the loader normalised with: targets and pictures are of the pixels before that.
    """

    drop_path: float = Field(default=0.0, ge=0, lt=1)
    decoder_width: int = Field(default=384, ge=1)
    decoder_depth: int = Field(default=4, ge=1)
    decoder_heads: int = Field(default=6, ge=1)
    mask: Literal["tube", "frame", "random"] = "tube"
    mask_ratio: float = Field(default=0.9, gt=0, lt=1)
    normalize_targets: bool = True
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _maskable(self) -> VideoMAEPretrainConfig:
        check_heads(self.decoder_width, self.decoder_heads)
        if self.interpolate_positions:
            raise ValueError("interpolate_positions is for fine-tuning: set num_frames and image_size instead")
        if not 0 < self.num_masked < self.num_tubelets:
            raise ValueError(f"mask_ratio {self.mask_ratio} hides {self.num_masked} of {self.num_tubelets} tubelets")
        return self

    @property
    def num_tubelets(self) -> int:
        """Tubelets of a clip."""
        frames, rows, columns = self.grid
        return frames * rows * columns

    @property
    def num_masked(self) -> int:
        """Tubelets of a clip that are hidden."""
        frames, rows, columns = self.grid
        if self.mask == "tube":
            return int(self.mask_ratio * rows * columns) * frames
        if self.mask == "frame":
            return int(self.mask_ratio * frames) * rows * columns
        return int(self.mask_ratio * self.num_tubelets)


class Reconstruction(NamedTuple):
    """Clips [B, 3, T, H, W] with pixels in [0, 1] (predictions may leave that range a little)."""

    original: Tensor
    masked: Tensor
    reconstructed: Tensor


class Decoder(nn.Module):
    """Blocks over all tubelets, then the pixels of the masked ones.

    Args:
        config: sizes.
    """

    def __init__(self, config: VideoMAEPretrainConfig) -> None:
        super().__init__()
        frames, height, width = config.tubelet
        self.checkpointing = config.checkpointing
        self.blocks = beit_blocks(
            config.decoder_width,
            num_heads=config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
            rates=drop_path_rates(config.drop_path, config.decoder_depth),
        )
        self.norm = LAYER_NORM(config.decoder_width)
        self.head = nn.Linear(config.decoder_width, 3 * frames * height * width)

    def forward(self, tokens: Tensor, num_masked: int) -> Tensor:
        """Pixels of the last `num_masked` tokens [B, N, width]."""
        x = run_blocks(self.blocks, tokens, checkpointing=self.checkpointing)
        pixels: Tensor = self.head(self.norm(x[:, -num_masked:]))
        return pixels


class VideoMAEPretrain(VideoModel):
    """VideoMAE pretraining; it has no classes. Input [B, 3, T, H, W], output: pixels of the masked tubelets.

    mask = model.draw_mask(len(video), generator)
    loss = model.loss(model(video, mask), video, mask)
    """

    config_class: ClassVar[type[VideoMAEPretrainConfig]] = VideoMAEPretrainConfig
    family: ClassVar[str] = "videomae-pretrain"
    decoder_positions: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoMAEPretrainConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.mask_kind = config.mask
        self.grid = config.grid
        self.tubelet = config.tubelet
        self.num_tubelets = config.num_tubelets
        self.num_masked = config.num_masked
        self.normalize_targets = config.normalize_targets
        self.encoder = VideoMAEEncoder(config, final_norm=True)
        self.encoder_to_decoder = nn.Linear(config.width, config.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        self.decoder = Decoder(config)
        positions = sine_positions(config.num_tubelets, config.decoder_width)
        self.register_buffer("decoder_positions", positions, persistent=False)
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, torch.tensor(getattr(config, name)).view(1, 3, 1, 1, 1), persistent=False)
        init_linear(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """The mask token."""
        return {"mask_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tubelets, encoder blocks, bridge, decoder blocks, decoder head."""
        digits = "" if coarse else r"\.(\d+)"
        return {
            "stem": r"^encoder\.patch_embed",
            "encoder": [(rf"^encoder\.blocks{digits}", None), (r"^encoder\.norm", MERGE)],
            "bridge": r"^encoder_to_decoder|^mask_token",
            "decoder": rf"^decoder\.blocks{digits}",
        }

    def draw_mask(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Random masks, bool [B, N] on the CPU, True where a tubelet is hidden; each hides exactly `num_masked`."""
        frames, rows, columns = self.grid
        unit = {"tube": rows * columns, "frame": frames, "random": self.num_tubelets}[self.mask_kind]
        num_hidden = self.num_masked * unit // self.num_tubelets
        rank = torch.rand(batch_size, unit, generator=generator, device="cpu").argsort(1).argsort(1)
        hidden = rank < num_hidden
        if self.mask_kind == "tube":
            hidden = hidden[:, None].expand(-1, frames, -1)
        elif self.mask_kind == "frame":
            hidden = hidden[:, :, None].expand(-1, -1, rows * columns)
        return hidden.reshape(batch_size, self.num_tubelets)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predicted pixels of the masked tubelets.

        Args:
            video: [B, 3, T, H, W], normalised with `pixel_mean` and `pixel_std`.
            mask: bool [B, N]; None draws one.

        Returns:
            [B, num_masked, t * p * p * 3], tubelets in (time, row, column) order.

        Raises:
            ModelError: T, H or W are not the configured ones, or the mask doesn't fit.
        """
        self.check_input(video)
        order = self._order(self.draw_mask(len(video)) if mask is None else mask, video)
        visible = order[:, : -self.num_masked]
        x = self.encoder_to_decoder(self.encoder(video, visible))
        batch, _, width = x.shape
        positions = self.decoder_positions.expand(batch, -1, -1)
        positions = positions.gather(1, order[:, :, None].expand(-1, -1, width))
        mask_tokens = self.mask_token.expand(batch, self.num_masked, -1)
        pixels: Tensor = self.decoder(torch.cat([x, mask_tokens], dim=1) + positions, self.num_masked)
        return pixels

    def _order(self, mask: Tensor, video: Tensor) -> Tensor:
        """Numbers of the tubelets, int64 [B, N]: visible ones first, each part in order."""
        if tuple(mask.shape) != (len(video), self.num_tubelets):
            raise ModelError(f"mask: expected bool [{len(video)}, {self.num_tubelets}], got {list(mask.shape)}")
        if mask.device.type == "cpu" and not torch.compiler.is_compiling():
            counts = mask.sum(1)
            if bool((counts != self.num_masked).any()):
                raise ModelError(
                    f"mask: expected {self.num_masked} hidden tubelets in each clip, got {counts.tolist()}"
                )
        return mask.to(video.device, torch.int8).argsort(dim=1, stable=True)

    def targets(self, video: Tensor, mask: Tensor) -> Tensor:
        """What `forward` should predict: pixels of the masked tubelets [B, num_masked, t * p * p * 3]."""
        hidden = self._order(mask, video)[:, -self.num_masked :]
        pixels = self._cut(self._unnormalise(video))
        if self.normalize_targets:
            variance, mean = torch.var_mean(pixels, dim=2, keepdim=True, correction=1)
            pixels = (pixels - mean) / (variance.sqrt() + _EPSILON)
        pixels = pixels.flatten(2)
        return pixels.gather(1, hidden[:, :, None].expand(-1, -1, pixels.shape[2]))

    def loss(self, prediction: Tensor, video: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the masked tubelets, in float32."""
        return self.clip_losses(prediction, video, mask).mean()

    def clip_losses(self, prediction: Tensor, video: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the masked tubelets of each clip, float32 [B]."""
        with torch.no_grad():
            targets = self.targets(video.float(), mask)
        return F.mse_loss(prediction.float(), targets, reduction="none").mean(dim=(1, 2))

    @torch.no_grad()
    def reconstruct(self, video: Tensor, mask: Tensor) -> Reconstruction:
        """Pictures of what the model sees and makes up: hidden tubelets are grey in `masked`, predicted in `reconstructed`.

        Normalised predictions get the mean and deviation of the tubelets that they stand for.
        """
        original = self._unnormalise(video.float())
        pixels = self._cut(original)
        prediction = self(video, mask).float().unflatten(2, (-1, 3))
        if self.normalize_targets:
            variance, mean = torch.var_mean(pixels, dim=2, keepdim=True, correction=1)
            hidden = self._order(mask, video)[:, -self.num_masked :, None, None].expand(-1, -1, 1, 3)
            prediction = prediction * (variance.sqrt().gather(1, hidden) + _EPSILON) + mean.gather(1, hidden)
        where = mask.to(video.device)[:, :, None, None].expand_as(pixels)
        return Reconstruction(
            original=original,
            masked=self._paste(pixels.masked_fill(where, 0.5)),
            reconstructed=self._paste(pixels.masked_scatter(where, prediction)),
        )

    def _unnormalise(self, video: Tensor) -> Tensor:
        return video * self.pixel_std + self.pixel_mean

    def _cut(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] to [B, N, t * p * p, 3]."""
        (t, h, w), (frames, rows, columns) = self.tubelet, self.grid
        x = video.reshape(len(video), 3, frames, t, rows, h, columns, w)
        return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(len(video), self.num_tubelets, t * h * w, 3)

    def _paste(self, pixels: Tensor) -> Tensor:
        """[B, N, t * p * p, 3] to [B, 3, T, H, W]."""
        x = pixels.reshape(len(pixels), *self.grid, *self.tubelet, 3)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(pixels), 3, *self.clip_shape)
