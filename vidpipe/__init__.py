"""vidpipe: decode videos once into WebDataset shards, then train video classifiers at GPU speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpipe.loader import Batch, Loader, LoaderOptions
    from vidpipe.models import create_model

__version__ = "0.1.0"
__all__ = ["Batch", "Loader", "LoaderOptions", "__version__", "create_model"]

_HOMES = {
    "Batch": "vidpipe.loader",
    "Loader": "vidpipe.loader",
    "LoaderOptions": "vidpipe.loader",
    "create_model": "vidpipe.models",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vidpipe' has no attribute {name!r}")
