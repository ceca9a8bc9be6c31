"""Which backend serves a loader."""

from __future__ import annotations

import logging

import torch

from vidpipe.errors import MissingExtraError, UsageError
from vidpipe.loader.engines.engine import Engine, EngineSetup
from vidpipe.loader.options import Backend, Decode
from vidpipe.loader.reading.pool import ReadPool

logger = logging.getLogger("vidpipe.loader")


def make_engine(
    backend: Backend,
    pool: ReadPool,
    setup: EngineSetup,
    *,
    decode: Decode,
    codecs: frozenset[str],
) -> tuple[str, Engine]:
    """The backend's name and its engine.

    Args:
        decode: where samples are decoded; see `LoaderOptions`.
        codecs: names of those that samples are stored with.

    Raises:
        MissingExtraError: `dali` was asked for where it can't be imported.
        UsageError: `decode` can't be had.
    """
    wanted = device_codecs(decode, backend, setup.device) & codecs
    if backend == "dali" or decode == "gpu" or (backend == "auto" and setup.device.type == "cuda"):
        try:
            from vidpipe.loader.engines.dali import DaliEngine
        except ImportError as error:
            if backend == "dali" or decode == "gpu":
                hint = "pip install nvidia-dali-cuda130 (for CUDA 12, in its place, nvidia-dali-cuda120), or take backend='torch'"
                raise MissingExtraError(f"backend 'dali': DALI can't be imported ({error}); {hint}") from error
            decoding = f", and {', '.join(sorted(wanted))} is decoded on the CPU" if wanted else ""
            logger.warning("DALI can't be imported (%s): backend 'torch' takes its place%s", error, decoding)
        else:
            if wanted:
                try:
                    return "dali", DaliEngine(pool, setup, wanted, insist=decode == "gpu")
                except ValueError as error:
                    message = f"{', '.join(sorted(wanted))} can't be decoded on {setup.device}: {error}"
                    if decode == "gpu":
                        raise UsageError(f"decode: {message}; take decode='cpu'") from error
                    logger.warning("%s; decoding on the CPU", message)
            return "dali", DaliEngine(pool, setup)
    from vidpipe.loader.engines.torch import TorchDeviceEngine, TorchEngine

    return "torch", (TorchEngine if setup.device.type == "cpu" else TorchDeviceEngine)(pool, setup)


def device_codecs(decode: Decode, backend: Backend, device: torch.device) -> frozenset[str]:
    """Which codecs the device is to decode, by name, if DALI is there.

    Raises:
        UsageError: `decode="gpu"` where no GPU can.
    """
    if decode == "gpu" and device.type != "cuda":
        raise UsageError(f"decode: got 'gpu' for batches on {device}; take device='cuda', or decode='auto'")
    if decode == "gpu" and backend == "torch":
        raise UsageError("decode: got 'gpu' with backend 'torch', which decodes on the CPU; take backend='dali'")
    if device.type != "cuda" or decode == "cpu":
        return frozenset()
    # By default not `mp4`: NVDEC, as DALI drives it, takes nearly as much of the CPU as decoding there, and gives a fifth of the clips.
    return frozenset({"jpeg", "mp4"} if decode == "gpu" else {"jpeg"})
