"""Frozen parts of a model in a file of their own: written once into a run's folder, beside the checkpoints that name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vidpipe.errors import CheckpointError, one_line
from vidpipe.files import whole_file
from vidpipe.models.base import VideoModel
from vidpipe.models.fingerprint import fingerprint


def frozen_part(model: nn.Module) -> dict[str, Tensor]:
    """The part of a model's state that its checkpoints leave out; empty for most models."""
    parts = model.frozen_parts if isinstance(model, VideoModel) else ()
    return {name: tensor for name, tensor in model.state_dict().items() if parts and name.startswith(parts)}


def write_frozen(state: Mapping[str, Tensor], folder: Path) -> str | None:
    """Write a frozen part if it isn't there; the file's name, None for an empty part.

    Raises:
        CheckpointError: it can't be written.
    """
    if not state:
        return None
    name = f"frozen-{fingerprint(state)[:16]}.pt"
    if not (folder / name).is_file():
        try:
            with whole_file(folder / name) as stream:
                torch.save(dict(state), stream)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{folder / name}: can't be written: {one_line(error)}") from error
    return name


def read_frozen(folder: Path, name: str) -> dict[str, Tensor]:
    """A frozen part, on the CPU.

    Args:
        folder: of the checkpoint that names it.

    Raises:
        CheckpointError: it is absent or damaged.
    """
    path = folder / Path(name).name
    if not path.is_file():
        raise CheckpointError(f"{path}: missing: checkpoints of this folder leave their frozen part to it; copy it too")
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        sound = name == f"frozen-{fingerprint(state)[:16]}.pt"
    except Exception as error:  # torch raises whatever its unpickler and zip reader do
        raise CheckpointError(f"{path}: damaged: {one_line(error)}") from error
    if not sound:
        raise CheckpointError(f"{path}: damaged: its content is not what its name says")
    return state
