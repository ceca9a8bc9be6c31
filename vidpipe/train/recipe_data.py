"""What a training run's clips are: the section `data` of the recipes in train/."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.color import ColorJitter
from vidpipe.loader.options import Augment, Backend, Balance, Check, Decode, EpochUnit, OnBad, Readers, Shuffle
from vidpipe.recipes import Section
from vidpipe.shards.manifest import Normalization


def _off(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of off


class DataSection(Section):
    """What a clip is and how many go into one step.

    Attributes:
        frames: frames of a clip, None as stored.
        stride: native source frames between two frames of a clip, a multiple of the stored stride; None as stored.
        size: side of the square crop in pixels.
        normalize: mean and std of the model's input, such as the weights that it starts from were trained with; None is what the
            shards say.
        batch_size: clips of one optimiser step, over all processes and accumulation steps together.
        eval_batch_size: clips of one evaluation step on one process; None is the same number as in one training step.
        augment: `train` for random crops and flips, None for centre crops.
        backend: the loader's engine.
        decode: where `jpeg` and `mp4` are decoded; `auto` is the GPU for `jpeg` where the engine can.
        epoch_unit: one clip of each `video` an epoch, or every `clip`.
        where: condition on the columns of samples.parquet; only clips for which it holds are learned from.
        balance: `class` draws every class equally often; None takes every clip once.
        shuffle: `global` or, for storage with slow seeks, `windowed`; None is `windowed` where any shards are at a URL.
        shuffle_window: shards in a window.
        check: `crc` verifies the checksum of all that is read, `off` trades that for speed.
        drop_last: leave an incomplete last batch of an epoch out.
        crop_scale, crop_ratio: ranges of a random crop's share of the area and of its width to height.
        horizontal_flip: mirror half of the clips; None is what the data set allows. Like crops only with `augment: train`.
        color_jitter, affine: further random changes; None is none. They need `augment: train`.
        clips_per_sample: clips that are made of each sample that is read, each augmented for itself; a batch holds as many
            fewer samples, an epoch as many more steps.
        on_bad: `raise` stops at a damaged sample, `skip` leaves it out and counts it.
        max_bad: share of all samples that a process may find damaged before `skip` stops it too.
        threads: of the loader; None is one for each core.
        readers: what reads, `threads` or `processes`, of which the training loop's own thread notices less; `auto` is these on a
            GPU, but for shards at a URL.
        prefetch_batches: that are prepared ahead of the one in use.
        cache_dir: where shards that are at a URL are kept; None is $VIDPIPE_CACHE, else $XDG_CACHE_HOME/vidpipe, else
            ~/.cache/vidpipe.
        cache_gb: bound of all shards there together, in 10^9 bytes.
    """

    frames: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    size: int = Field(default=224, ge=16)
    normalize: Normalization | None = None
    batch_size: int = Field(default=32, ge=1)
    eval_batch_size: int | None = Field(default=None, ge=1)
    augment: Augment | None = "train"
    backend: Backend = "auto"
    decode: Decode = "auto"
    epoch_unit: EpochUnit = "video"
    where: str | None = None
    balance: Balance | None = None
    shuffle: Shuffle | None = None
    shuffle_window: int = Field(default=8, ge=1)
    check: Annotated[Check, BeforeValidator(_off)] = "crc"
    drop_last: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool | None = None
    color_jitter: ColorJitter | None = None
    affine: Affine | None = None
    clips_per_sample: int = Field(default=1, ge=1)
    on_bad: OnBad = "raise"
    max_bad: float = Field(default=0.05, ge=0, le=1)
    threads: int | None = Field(default=None, ge=1)
    readers: Readers = "auto"
    prefetch_batches: int = Field(default=4, ge=0)
    cache_dir: str | None = None
    cache_gb: float = Field(default=100.0, gt=0)
