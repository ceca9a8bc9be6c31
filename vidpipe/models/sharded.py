"""Checkpoints of models that are dealt out among processes: a folder instead of a file.

It holds the tensors as torch.distributed.checkpoint writes them, each process its own part, and `plain.pt` with all else,
where a reference stands in each tensor's place. It reads at any number of processes, and nothing but tensors and plain
containers is unpickled.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor

PLAIN = "plain.pt"
_REFERENCE = "tensor of this checkpoint"

Layout = Callable[[tuple[str, ...]], Tensor | None]
"""From where a tensor stands in the nested state to one that is dealt out as it shall be; None keeps it whole."""


def split_tensors(state: Any) -> tuple[dict[str, Tensor], Any]:
    """The tensors of nested plain containers by name, and the containers with references in the tensors' places."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            tensors["/".join(path)] = value
            return {_REFERENCE: list(path)}
        if isinstance(value, Mapping):
            return {key: walk(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(item, (*path, str(number))) for number, item in enumerate(value))
        return value

    return tensors, walk(state, ())


def is_sharded(path: Path) -> bool:
    """Whether `path` is a folder that holds such a checkpoint."""
    return (path / PLAIN).is_file()


def read_plain(folder: Path) -> Any:
    """The checkpoint without its tensors."""
    return torch.load(folder / PLAIN, map_location="cpu", weights_only=True)


def read_sharded(folder: Path, *, layout: Layout | None = None) -> Any:
    """The checkpoint as the nested containers that were written.

    Args:
        layout: how tensors are dealt out; of those that are, only this process's part is read. By default all are whole,
            on the CPU.
    """
    reader, plain = _Reader(folder), read_plain(folder)
    stored = reader.read_metadata().state_dict_metadata
    tensors = {}
    for place in _places(plain):
        name = "/".join(place)
        tensors[name] = _room(stored[name], layout(place) if layout is not None else None)
    with plain_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is used
        load(tensors, storage_reader=reader, no_dist=True)
    return _joined(plain, tensors)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Put what failed first in place of torch's CheckpointException, which is no Exception and whose text is a traceback.

    Raises:
        RuntimeError: saying what that said.
    """
    try:
        yield
    except CheckpointException as error:
        failure, _ = next(iter(error.failures.values()))
        raise RuntimeError(str(failure)) from error


def _room(stored: Any, like: Tensor | None) -> Tensor:
    """An empty tensor for a stored one, dealt out as `like` is."""
    if not isinstance(stored, TensorStorageMetadata):
        raise TypeError("its index has something else in a tensor's place")
    if isinstance(like, DTensor) and like.shape == stored.size:
        return torch.empty_like(like, dtype=stored.properties.dtype, requires_grad=False)
    return torch.empty(stored.size, dtype=stored.properties.dtype)


def deal_out(state: Any, *, layout: Layout) -> Any:
    """The nested containers with every whole tensor replaced by this process's part of it, where `layout` deals it out."""
    tensors, plain = split_tensors(state)
    for name, tensor in tensors.items():
        like = layout(tuple(name.split("/")))
        if isinstance(like, DTensor) and like.shape == tensor.shape:
            whole = tensor.to(like.device)
            tensors[name] = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return _joined(plain, tensors)


def _places(plain: Any) -> Iterator[tuple[str, ...]]:
    """Where the tensors stand."""
    if isinstance(plain, Mapping):
        if set(plain) == {_REFERENCE}:
            yield tuple(plain[_REFERENCE])
            return
        plain = plain.values()
    elif not isinstance(plain, list | tuple):
        return
    for item in plain:
        yield from _places(item)


def _joined(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(plain, Mapping):
        if set(plain) == {_REFERENCE}:
            return tensors["/".join(plain[_REFERENCE])]
        return {key: _joined(item, tensors) for key, item in plain.items()}
    if isinstance(plain, list | tuple):
        return type(plain)(_joined(item, tensors) for item in plain)
    return plain


class _Reader(FileSystemReader):
    """torch's reader, but for its trust in the index: that is a pickle, of which only the expected classes are taken."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self._get_metadata_path().open("rb") as stream:  # type: ignore[attr-defined]  # a Path
            metadata = _Unpickler(stream).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("not the index of a checkpoint")
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module.split(".", maxsplit=1)[0] in ("torch", "pathlib") else None
        harmless = (
            (module == "torch" and (name == "Size" or isinstance(found, torch.dtype)))
            or (module == "torch.serialization" and name == "_get_layout")
            or (module == "torch.distributed.checkpoint.metadata" and isinstance(found, type))
            or (module, name) == ("torch.distributed.checkpoint.filesystem", "_StorageInfo")
            or (module.startswith("pathlib") and name in ("Path", "PosixPath", "PurePosixPath"))
        )
        if not harmless:
            raise pickle.UnpicklingError(f"its index asks for {module}.{name}, which has no place there")
        return found
