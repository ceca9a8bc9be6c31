"""Loading: shards to batches. `Loader` is the whole of it for users, beside what is done to whole batches afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader.augmentation.affine import Affine
    from vidpipe.loader.augmentation.color import ColorJitter
    from vidpipe.loader.augmentation.mixing import mix_batch
    from vidpipe.loader.augmentation.policies import Mixing, RandAugment
    from vidpipe.loader.augmentation.randaugment import rand_augment
    from vidpipe.loader.batch import Batch, RawBatch
    from vidpipe.loader.loader import Loader
    from vidpipe.loader.options import LoaderOptions
    from vidpipe.loader.stats import LoaderStats
    from vidpipe.shards.manifest import Normalization

_MODULES = {
    "Affine": "augmentation.affine",
    "Batch": "batch",
    "ColorJitter": "augmentation.color",
    "Loader": "loader",
    "LoaderOptions": "options",
    "LoaderStats": "stats",
    "Mixing": "augmentation.policies",
    "Normalization": "options",
    "RandAugment": "augmentation.policies",
    "RawBatch": "batch",
    "mix_batch": "augmentation.mixing",
    "rand_augment": "augmentation.randaugment",
}

__all__ = [
    "Affine",
    "Batch",
    "ColorJitter",
    "Loader",
    "LoaderOptions",
    "LoaderStats",
    "Mixing",
    "Normalization",
    "RandAugment",
    "RawBatch",
    "mix_batch",
    "rand_augment",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"vidpipe.loader.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'vidpipe.loader' has no attribute {name!r}")
