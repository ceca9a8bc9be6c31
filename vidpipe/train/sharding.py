"""FSDP2: a model dealt out among processes, and its part of a checkpoint."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vidpipe.files import sync_folder, whole_file
from vidpipe.models.sharded import PLAIN, plain_errors, split_tensors


def shard_module(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Deal a module's parameters out along a mesh of one dimension, block by block, in place.

    A forward pass then gathers one block at a time: the items of the module's lists, and what is left as one.
    """
    for block in _blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


def is_dealt_out(module: nn.Module) -> bool:
    """Whether a module's parameters are dealt out among processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers (running statistics); every process must call it."""
    for buffer in module.buffers():
        distributed.broadcast(buffer, src=0)


def make_group() -> distributed.ProcessGroup:
    """A group of all processes on the CPU, for one thread's use; every process must call it."""
    return cast(distributed.ProcessGroup, distributed.new_group(backend="gloo"))


def write_sharded(state: Mapping[str, Any], folder: Path, *, group: distributed.ProcessGroup, rank: int) -> None:
    """Write this process's part of a checkpoint; when it returns on the first process, all of it is on disk.

    Args:
        state: nested plain containers of tensors; the same on every process, but for the parts of dealt-out tensors.
        group: of all processes, on the CPU, that nothing else uses meanwhile.
        rank: of this process.
    """
    tensors, plain = split_tensors(state)
    if rank == 0:  # no other process writes before this one has planned what
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    writer = FileSystemWriter(folder)
    with plain_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(tensors, storage_writer=writer, process_group=group)
    if rank == 0:
        with whole_file(folder / PLAIN) as stream:
            torch.save(plain, stream)
        sync_folder(folder)
