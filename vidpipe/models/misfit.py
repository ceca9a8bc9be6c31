"""How given weights differ from those that a module has, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

_LISTED = 6


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What weights lack, what a module doesn't have of theirs, and what has another shape; empty where they fit exactly.

    Args:
        own: the module's state.
        given: the weights.
    """
    common = sorted(own.keys() & given.keys())
    return differences(
        missing=sorted(own.keys() - given.keys()),
        unknown=sorted(given.keys() - own.keys()),
        reshaped=[other_shape(name, given[name], own[name]) for name in common if own[name].shape != given[name].shape],
    )


def differences(*, missing: Iterable[str], unknown: Iterable[str], reshaped: Iterable[str] = ()) -> str:
    """The words of `misfit`."""
    kinds = {"lacks": listed(missing), "has unknown keys": listed(unknown), "has other shapes:": listed(reshaped)}
    return " and ".join(f"{kind} {names}" for kind, names in kinds.items() if names)


def other_shape(name: str, given: Tensor, own: Tensor) -> str:
    """A name with the shape that it has and the one that it should have."""
    return f"{name} {list(given.shape)} instead of {list(own.shape)}"


def listed(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
