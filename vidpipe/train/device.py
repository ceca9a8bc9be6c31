"""Device, precision and processes of a run, by way of Lightning Fabric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

from vidpipe.environment import num_processes
from vidpipe.errors import UsageError
from vidpipe.train.recipe import Precision, Strategy
from vidpipe.train.sharding import shard_module

Device = Literal["auto", "cpu", "cuda"]
_FABRIC_NAMES: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def pick_device(device: Device) -> str:
    """`cpu` or `cuda`.

    Raises:
        UsageError: a GPU was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu, or check `nvidia-smi`")
    return device


def make_fabric(*, device: Device, precision: Precision, strategy: Strategy = "ddp") -> Fabric:
    """Fabric for one process, or for this process among those that torchrun started.

    Args:
        strategy: of several processes; a single one needs none.

    Raises:
        UsageError: a GPU was asked for and there is none, device, strategy and precision don't go together, or the launcher's
            variables are not what they should be; see `num_processes`.
    """
    accelerator = pick_device(device)
    world_size, local_size = num_processes(gpus=torch.cuda.device_count() if accelerator == "cuda" else None)
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
    if world_size > 1:
        distributed: dict[str, Any] = {
            "strategy": _sharding(world_size, precision) if strategy == "fsdp" else "ddp",
            "devices": local_size,
            "num_nodes": world_size // local_size,
            "plugins": [TorchElasticEnvironment()],  # or Fabric would believe Slurm's variables rather than torchrun's
        }
    else:
        distributed = {"strategy": "auto", "devices": 1, "plugins": [LightningEnvironment()]}
    if precision == "fp16" and accelerator == "cpu":
        raise UsageError("precision fp16 needs a GPU: on the CPU there is no loss scaling for it; use bf16 or fp32")
    fabric = Fabric(
        accelerator=accelerator, precision=_FABRIC_NAMES[resolve_precision(precision, device)], **distributed
    )
    fabric.launch()
    return fabric


def _sharding(world_size: int, precision: Precision) -> ModelParallelStrategy:
    if precision == "fp16":
        raise UsageError(
            "strategy fsdp doesn't go with precision fp16, whose loss scaling it can't do; use bf16 or fp32"
        )
    return ModelParallelStrategy(
        lambda module, mesh: shard_module(module, mesh["data_parallel"]),
        data_parallel_size=world_size,
        tensor_parallel_size=1,
    )


def resolve_precision(precision: Precision, device: Device) -> Precision:
    """A recipe's precision on a device, where `auto` is bf16 on a GPU that has it and fp32 elsewhere.

    Raises:
        UsageError: a GPU was asked for and there is none.
    """
    if precision != "auto":
        return precision
    has_bf16 = pick_device(device) == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def precision_as_trained(precision: Precision, recipe: Mapping[str, Any], device: Device) -> Precision:
    """What a checkpoint is evaluated in where `auto` is asked for: what it was trained in, but fp32 on the CPU.

    Args:
        recipe: the checkpoint's.

    Raises:
        UsageError: a GPU was asked for and there is none.
    """
    if precision != "auto":
        return precision
    trained: Precision = recipe["precision"]
    return trained if pick_device(device) == "cuda" else "fp32"


def gathered(own: Any, world_size: int) -> list[Any]:
    """What each process has, in their order; every process must call it."""
    if world_size == 1:
        return [own]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that tensors took on a GPU so far; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
