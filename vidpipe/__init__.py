"""vidpipe: decode videos once into WebDataset shards, then train video classifiers at GPU speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader import (
        Affine,
        Batch,
        ColorJitter,
        Loader,
        LoaderOptions,
        Mixing,
        Normalization,
        RandAugment,
        mix_batch,
        rand_augment,
    )
    from vidpipe.models import create_model

__version__ = "0.1.0"
__all__ = [
    "Affine",
    "Batch",
    "ColorJitter",
    "Loader",
    "LoaderOptions",
    "Mixing",
    "Normalization",
    "RandAugment",
    "__version__",
    "create_model",
    "mix_batch",
    "rand_augment",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("vidpipe.models" if name == "create_model" else "vidpipe.loader"), name)
    raise AttributeError(f"module 'vidpipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # completion doesn't see by itself what is imported on demand
