"""Data-set formats: each turns a source folder and its annotations into a list of (path, label, split).

A format is one module of this package with one subclass of `DatasetFormat`; nothing else is to be edited to add one.
Its name is the module's, unless the class says otherwise.
"""

from __future__ import annotations

import importlib
import pkgutil

from vidpipe.datasets.base import DatasetFormat, Listing, Video
from vidpipe.errors import UsageError
from vidpipe.recipes import nearest

__all__ = ["DatasetFormat", "Listing", "Video", "get_format", "list_formats"]


def list_formats() -> dict[str, type[DatasetFormat]]:
    """Name to class of every format, sorted by name; the first line of a class's docstring describes it."""
    found: dict[str, type[DatasetFormat]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, DatasetFormat) and value is not DatasetFormat:
                found.setdefault(value.format_name or value.__module__.rpartition(".")[2], value)
    return dict(sorted(found.items()))


def get_format(name: str) -> type[DatasetFormat]:
    """The format of that name.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    formats = list_formats()
    if name not in formats:
        raise UsageError(f"no dataset format {name!r}{nearest(name, formats)}; `vidpipe list datasets` shows all")
    return formats[name]
