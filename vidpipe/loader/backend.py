"""Which backend serves a loader."""

from __future__ import annotations

from typing import get_args

import torch

from vidpipe.errors import MissingExtraError, UsageError
from vidpipe.loader.batch import Backend, Dtype
from vidpipe.loader.engine import Engine, EngineSetup
from vidpipe.loader.pool import ReadPool


def make_engine(backend: Backend, pool: ReadPool, setup: EngineSetup) -> tuple[str, Engine]:
    """The backend's name and its engine.

    Raises:
        MissingExtraError: `dali` was asked for where it can't be imported.
    """
    if backend == "dali" or (backend == "auto" and setup.device.type == "cuda"):
        try:
            from vidpipe.loader.dali import DaliEngine

            return "dali", DaliEngine(pool, setup)
        except ImportError as error:
            if backend == "dali":
                hint = "pip install nvidia-dali-cuda130 (or vidpipe[cuda12]), or take backend='torch'"
                raise MissingExtraError(f"backend 'dali': DALI can't be imported ({error}); {hint}") from error
    from vidpipe.loader.torch import TorchDeviceEngine, TorchEngine

    return "torch", (TorchEngine if setup.device.type == "cpu" else TorchDeviceEngine)(pool, setup)


def torch_dtype(name: Dtype) -> torch.dtype:
    """The type that a loader's argument names.

    Raises:
        UsageError: batches can't have it.
    """
    if name not in get_args(Dtype):
        raise UsageError(f"dtype: got {name!r}, expected one of {', '.join(get_args(Dtype))}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
