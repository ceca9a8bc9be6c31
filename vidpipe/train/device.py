"""Device, precision and processes of a run, by way of Lightning Fabric."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from vidpipe.errors import UsageError
from vidpipe.train.recipe import Precision

Device = Literal["auto", "cpu", "cuda"]


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


def make_fabric(*, device: Device, precision: Precision) -> Fabric:
    """Fabric for one process, or for this process among those that torchrun started."""
    accelerator = pick_device(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size)))
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
    distributed: dict[str, Any] = {"strategy": "auto", "devices": 1}
    if world_size > 1:
        distributed = {"strategy": "ddp", "devices": local_size, "num_nodes": world_size // local_size}
    fabric = Fabric(accelerator=accelerator, precision=fabric_precision(precision, accelerator), **distributed)
    fabric.launch()
    return fabric


def fabric_precision(precision: Precision, accelerator: str) -> Any:
    """Fabric's name for a recipe's precision."""
    if precision == "auto":
        precision = "bf16" if accelerator == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that tensors took on a GPU so far; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
