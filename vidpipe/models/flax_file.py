"""Reading Flax checkpoints (scenic's) without Flax: msgpack, in which arrays are (shape, dtype, bytes) of extension type 1.

The format is that of `flax.serialization`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_FIRST_BYTES = frozenset({*range(0x81, 0x90), 0xDE, 0xDF})  # a map that isn't empty


def is_flax_file(path: Path) -> bool:
    """Whether a file begins as a msgpack map does; torch's and safetensors' files don't."""
    with path.open("rb") as stream:
        first = stream.read(1)
    return bool(first) and first[0] in _FIRST_BYTES


def read_flax(path: Path) -> dict[str, Tensor]:
    """The parameters of a train state, by their path (`SpatialTransformer/encoderblock_0/LayerNorm_0/scale`).

    Raises:
        TypeError, ValueError: the file is no such checkpoint.
    """
    import msgpack

    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False, strict_map_key=False)
    for step in ("optimizer", "target", "params"):  # `optimizer/target` of old, `params` of new train states
        if isinstance(tree, Mapping) and isinstance(tree.get(step), Mapping):
            tree = tree[step]
    if not isinstance(tree, Mapping):
        raise TypeError("not a Flax checkpoint: expected a tree of parameters")
    return dict(_leaves(tree, ()))


def _array(code: int, data: bytes) -> Tensor | None:
    import msgpack

    if code != _ARRAY:
        return None
    shape, name, content = msgpack.unpackb(data, raw=True)
    dtype = getattr(torch, name.decode(), None)
    if not isinstance(dtype, torch.dtype):
        return None
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and _CHUNKED in value:
            chunks, shape = value["chunks"], value["shape"]
            flat = torch.cat([chunks[str(number)] for number in range(len(chunks))])
            yield "/".join((*path, name)), flat.reshape([shape[str(axis)] for axis in range(len(shape))])
        elif isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        elif isinstance(value, Tensor):
            yield "/".join((*path, name)), value
