"""Loading: shards to batches. `Loader` is the whole of it for users, beside what is done to whole batches afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader.affine import Affine
    from vidpipe.loader.batch import Batch, RawBatch
    from vidpipe.loader.color import ColorJitter
    from vidpipe.loader.loader import Loader
    from vidpipe.loader.mixing import mix_batch
    from vidpipe.loader.options import LoaderOptions
    from vidpipe.loader.policies import Mixing, RandAugment
    from vidpipe.loader.randaugment import rand_augment
    from vidpipe.loader.stats import LoaderStats
    from vidpipe.shards.manifest import Normalization

_MODULES = {
    "Affine": "affine",
    "Batch": "batch",
    "ColorJitter": "color",
    "Loader": "loader",
    "LoaderOptions": "options",
    "LoaderStats": "stats",
    "Mixing": "policies",
    "Normalization": "options",
    "RandAugment": "policies",
    "RawBatch": "batch",
    "mix_batch": "mixing",
    "rand_augment": "randaugment",
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
