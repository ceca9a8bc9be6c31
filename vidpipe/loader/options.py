"""How a loader is set up beyond its arguments, and which values are refused."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.color import ColorJitter
from vidpipe.loader.checks import are_counts, check_choice, check_whole, is_number, is_range, is_whole
from vidpipe.shards.manifest import Normalization

Augment = Literal["train"]
Backend = Literal["auto", "dali", "torch"]
Balance = Literal["class"]
Check = Literal["crc", "off"]
Decode = Literal["auto", "cpu", "gpu"]
Dtype = Literal["float32", "float16", "bfloat16"]
EpochUnit = Literal["video", "clip"]
OnBad = Literal["raise", "skip"]
Readers = Literal["auto", "threads", "processes"]
Shuffle = Literal["global", "windowed"]
WindowPlace = Literal["random", "center"]
Window = WindowPlace | int

_CHOICES: dict[str, tuple[object, ...]] = {
    "epoch_unit": get_args(EpochUnit),
    "check": get_args(Check),
    "on_bad": get_args(OnBad),
    "decode": get_args(Decode),
    "readers": get_args(Readers),
    "balance": (None, *get_args(Balance)),
    "shuffle": (None, *get_args(Shuffle)),
    "horizontal_flip": (None, True, False),
}
_ONLY_WITH_AUGMENTATION = ("clips_per_sample", "color_jitter", "affine", "crop_scale", "crop_ratio", "horizontal_flip")
_LEAST = {"prefetch_batches": 0, "clips_per_sample": 1, "shuffle_window": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """Settings that few have to touch.

    Attributes:
        window: where in the stored clip the frames are taken: `random`, `center`, or a first frame (but for frames that
            are spread evenly over the clip). By default random with augmentation and centred without.
        epoch_unit: `video` takes one clip of each video an epoch, `clip` takes all clips.
        check: `crc` verifies the checksum of all that is read, `off` trades that for speed.
        on_bad: `raise` stops at a damaged sample; `skip` logs it and puts another one in its place, marked in `is_padding`. A
            shard that is missing or not what was written counts as so many damaged samples.
        max_bad: share of all samples that a process may find damaged (one always may) before `skip` stops it too.
        crop_scale: range of the random crop's share of the area, within 0 to 1. Only with augmentation.
        crop_ratio: range of its width to height. Only with augmentation.
        horizontal_flip: mirror half of the clips; by default what the manifest allows. Only with augmentation.
        threads: that read and, on the CPU, transform; by default one for each of this process's own cores (see `own_cores`),
            16 at most, 8 where they only copy frames for a GPU.
        readers: `processes` has one for each of the threads, which reads and decodes for it: the trainer's own thread then doesn't
            share Python's lock with them. Not for shards at a URL, nor on the CPU for backend `torch`. `auto` takes them for
            batches on a GPU, from shards that are no URL's, where the system allows them.
        prefetch_batches: that are prepared ahead of the one in use.
        prefetch_across_epochs: prepare the next epoch's first batches while an epoch's last ones are in use, so that it begins
            without a wait. By default with augmentation, as without it a loader mostly serves single passes.
        normalization: of the batches' clips, in place of the manifest's: shards hold 8-bit frames, so that models of any mean
            and std learn from the same ones.
        views: (T, S): every video gives T windows, evenly over what is stored of it, times S square crops, evenly along the
            longer side. Each view is an entry of the batches, marked in `Batch.view`. Only without augmentation.
        clips_per_sample: repeated augmentation: K windows, each with an augmentation of its own, of one read; they stand
            together in a batch. Batches are counted in clips, so that their size has to be a multiple of K; epochs in samples. Only with
            augmentation.
        color_jitter: change of colours; None for none. Only with augmentation.
        affine: rotation, shear, translation and scaling; None for none. Only with augmentation.
        where: take only samples for which this condition on the columns of samples.parquet holds, such as
            "label_name in ('a', 'b') and duration_seconds > 2" (see `matching_rows`).
        balance: `class` draws every class equally often, over data sets or, if these are weighted, within each.
        shuffle: `global` permutes all samples; `windowed` permutes the shards, and the samples within windows of some shards:
            for storage with slow seeks, and the default for data sets that any part of is remote.
        shuffle_window: shards in a window.
        decode: where `jpeg` and `mp4` become frames: `gpu` (nvJPEG and NVDEC, by backend DALI), `cpu` (the threads that read),
            or `auto`, the GPU for `jpeg`, where DALI makes batches on one and its decoder proves able to.
        cache_dir: where shards of remote data sets are kept; by default $VIDPIPE_CACHE, else $XDG_CACHE_HOME/vidpipe, else
            ~/.cache/vidpipe.
        cache_gb: bound of all shards there together, in 10^9 bytes.
    """

    window: Window | None = None
    epoch_unit: EpochUnit = "video"
    check: Check = "crc"
    on_bad: OnBad = "raise"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool | None = None
    threads: int | None = None
    readers: Readers = "auto"
    prefetch_batches: int = 4
    prefetch_across_epochs: bool | None = None
    normalization: Normalization | None = None
    views: tuple[int, int] | None = None
    clips_per_sample: int = 1
    color_jitter: ColorJitter | None = None
    affine: Affine | None = None
    max_bad: float = 0.05
    where: str | None = None
    balance: Balance | None = None
    shuffle: Shuffle | None = None
    shuffle_window: int = 8
    decode: Decode = "auto"
    cache_dir: str | os.PathLike[str] | None = None
    cache_gb: float = 100.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), least)
        if self.threads is not None:
            check_whole("threads", self.threads, 1)
        if isinstance(self.window, int):
            check_whole("window", self.window, 0)
        else:
            check_choice("window", self.window, (None, *get_args(WindowPlace)))
        for name, valid, expected in (
            ("views", self.views is None or are_counts(self.views), "two whole numbers, at least 1"),
            ("crop_scale", is_range(self.crop_scale, most=1), "two shares in order, above 0 and at most 1"),
            ("crop_ratio", is_range(self.crop_ratio), "two ratios in order, above 0"),
            ("max_bad", is_number(self.max_bad) and 0 <= self.max_bad <= 1, "a share from 0 to 1"),
            ("cache_gb", is_number(self.cache_gb) and 0 < self.cache_gb < math.inf, "a number, more than 0"),
            ("cache_dir", isinstance(self.cache_dir, str | os.PathLike | None), "a path"),
            ("where", isinstance(self.where, str | None), "a condition in a string, such as 'label >= 0'"),
            ("prefetch_across_epochs", isinstance(self.prefetch_across_epochs, bool | None), "True or False"),
            (
                "normalization",
                self.normalization is None
                or (
                    isinstance(self.normalization, Normalization)
                    and all(map(math.isfinite, self.normalization.mean))
                    and all(0 < std < math.inf for std in self.normalization.std)
                ),
                "a Normalization(mean=..., std=...) of numbers, with std above 0",
            ),
            ("color_jitter", isinstance(self.color_jitter, ColorJitter | None), "a ColorJitter(brightness=..., ...)"),
            ("affine", isinstance(self.affine, Affine | None), "an Affine(rotation=..., ...)"),
        ):
            if not valid:
                raise UsageError(f"{name}: got {getattr(self, name)!r}, expected {expected}")


def check_choices(*, augment: object, backend: object, dtype: object, drop_last: object) -> None:
    """Refuse arguments of `Loader` that are none of their values.

    Raises:
        UsageError: the message names these.
    """
    check_choice("augment", augment, (None, *get_args(Augment)))
    check_choice("backend", backend, get_args(Backend))
    check_choice("dtype", dtype, get_args(Dtype))
    check_choice("drop_last", drop_last, (True, False))


def check_numbers(*, batch_size: int, size: int, seed: int, rank: int, world_size: int) -> None:
    """Refuse arguments of `Loader` that are out of their range.

    Raises:
        UsageError: the message names it.
    """
    for name, value in (("batch_size", batch_size), ("size", size), ("world_size", world_size)):
        check_whole(name, value, 1)
    for name, value, end, which in (
        ("seed", seed, 2**63, "2^63 - 1"),
        ("rank", rank, world_size, f"{world_size - 1} (world_size {world_size})"),
    ):
        if not (is_whole(value, 0) and value < end):
            raise UsageError(f"{name}: got {value!r}, expected 0 to {which}")


def check_together(options: LoaderOptions, *, augmented: bool, batch_size: int) -> None:
    """Refuse options about the clips of a sample that exclude each other.

    Raises:
        UsageError: the message names them.
    """
    if options.views is not None:
        for name, clash in (
            ("augment='train'", augmented),
            (f"window={options.window!r}", options.window is not None),
            ("epoch_unit='clip'", options.epoch_unit == "clip"),
        ):
            if clash:
                raise UsageError(f"views: got {options.views} with {name}, which they exclude; leave one of them out")
    clips = options.clips_per_sample
    if batch_size % clips:
        raise UsageError(
            f"clips_per_sample: got {clips} with batches of {batch_size} clips: expected a divisor of that"
        )
    default = LoaderOptions()
    for name in () if augmented else _ONLY_WITH_AUGMENTATION:
        value = getattr(options, name)
        value = tuple(value) if isinstance(value, list) else value
        if value and value != getattr(default, name):
            raise UsageError(f"{name}: got {value!r} without augmentation, which it belongs to; add augment='train'")


def check_readers(options: LoaderOptions, *, backend: Backend, on_cpu: bool) -> None:
    """Refuse processes that read where they can't.

    Args:
        on_cpu: whether batches are wanted there, by backend torch unless `dali` is asked for.

    Raises:
        UsageError: the message says what to take.
    """
    if options.readers == "processes" and on_cpu and backend != "dali":
        raise UsageError(
            "readers: got 'processes' with backend 'torch' on the CPU, where the threads that read also transform what they have "
            "read; take readers='threads', or backend='dali'"
        )
