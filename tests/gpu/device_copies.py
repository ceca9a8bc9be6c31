"""Finds on the CPU what would make a host wait for a GPU, with the meta device in the GPU's place.

Tensors on it have no content, so that whoever asks for some has to be noticed; and copies to it are told from work on it.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

META = torch.device("meta")
# Whose result has as many elements as the content says: the host has to know before it can go on.
_SIZED_BY_CONTENT = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}


def _only_fills(func: Any, args: Any) -> bool:
    """Whether `index_put_` becomes `masked_fill_`, as for `x[mask] = 0`; newer releases of torch decide that earlier."""
    return func == aten.index_put_.default and args[2].ndim == 0


class HostWaits(TorchDispatchMode):
    """Where the host would wait: values and sizes asked for, and copies that aren't queued (`non_blocking`).

    Attributes:
        found: what, and the line of vidpipe that did it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        on_device = [leaf.device == META for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func == aten._local_scalar_dense.default and any(on_device):
            self._note("a value is asked for")
            return torch.ones((), dtype=args[0].dtype).item()
        if func in _SIZED_BY_CONTENT and any(on_device):
            self._note(f"the content decides the size of {func}")
        if func in (aten.index.Tensor, aten.index_put_.default) and any(on_device):
            places = [place for place in args[1] if place is not None]
            if any(place.dtype in (torch.bool, torch.uint8) for place in places) and not _only_fills(func, args):
                self._note("a mask picks elements")
            if any(place.device != META for place in places):
                self._note("places are copied to the device")
        if func == aten._to_copy.default and not any(on_device) and kwargs.get("device") == META:
            self._check_copy(kwargs.get("non_blocking", False))
        if func == aten.copy_.default and len(set(on_device[:2])) == 2:
            self._check_copy(args[2] if len(args) > 2 else False)
        if func == aten.lift_fresh.default and any(on_device):
            self._note("a tensor is made on the device of Python's numbers")
        return func(*args, **kwargs)

    def _check_copy(self, non_blocking: bool) -> None:
        if not non_blocking:
            self._note("a copy is waited for")

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/vidpipe/" in frame.filename]
        self.found.append(f"{what}: {frames[-1].filename}:{frames[-1].lineno}" if frames else what)
