"""Loading: shards to batches. `Loader` is the whole of it for users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader.batch import Batch, LoaderOptions, LoaderStats, RawBatch
    from vidpipe.loader.loader import Loader

__all__ = ["Batch", "Loader", "LoaderOptions", "LoaderStats", "RawBatch"]


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("Batch", "LoaderOptions", "LoaderStats", "RawBatch"):
        return getattr(importlib.import_module("vidpipe.loader.batch"), name)
    if name == "Loader":
        return importlib.import_module("vidpipe.loader.loader").Loader
    raise AttributeError(f"module 'vidpipe.loader' has no attribute {name!r}")
