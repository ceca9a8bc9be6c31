"""A checkpoint's tensors by their keys, before they are any model's."""

from __future__ import annotations

import re

import torch
from torch import Tensor

State = dict[str, Tensor]
Rename = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs, applied in order to every key."""


def renamed(state: State, rename: Rename, *, unused: str) -> State:
    """The state under other keys.

    Args:
        unused: regular expression of the keys, as they are, that are left out.
    """
    result: State = {}
    for key, tensor in state.items():
        if re.search(unused, key):
            continue
        name = key
        for pattern, replacement in rename:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result


def joined_qkv(state: State) -> State:
    """Queries, keys and values as one projection; without key biases, VideoMAE's two separate ones."""
    result = {key: tensor for key, tensor in state.items() if not re.search(r"\.attn\.(query|key|value)\.", key)}
    for key, query in state.items():
        base, dot, kind = key.rpartition("query.")
        if not dot:
            continue
        parts = [state.get(f"{base}{part}.{kind}") for part in ("key", "value")]
        if kind == "bias" and parts[0] is None and parts[1] is not None:
            result[f"{base}q_bias"], result[f"{base}v_bias"] = query, parts[1]
        else:
            result[f"{base}qkv.{kind}"] = torch.cat([query, *(part for part in parts if part is not None)])
    return result
