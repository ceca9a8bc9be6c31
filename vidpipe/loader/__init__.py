"""Loading: shards to batches. `Loader` is the whole of it for users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader.batch import Batch, RawBatch
    from vidpipe.loader.loader import Loader
    from vidpipe.loader.options import LoaderOptions
    from vidpipe.loader.stats import LoaderStats

_MODULES = {
    "Batch": "batch",
    "Loader": "loader",
    "LoaderOptions": "options",
    "LoaderStats": "stats",
    "RawBatch": "batch",
}

__all__ = ["Batch", "Loader", "LoaderOptions", "LoaderStats", "RawBatch"]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"vidpipe.loader.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'vidpipe.loader' has no attribute {name!r}")
