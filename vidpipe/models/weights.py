"""Reading published weights: from files, folders, timm, torchvision or the Hugging Face hub, as name -> tensor.

Nothing is unpickled but tensors and plain containers (`weights_only=True`; `argparse.Namespace`, which research code
stores beside its weights, is let through as plain data).
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidpipe.errors import CheckpointError, one_line
from vidpipe.models.flax_file import is_flax_file, read_flax
from vidpipe.models.frozen import read_frozen
from vidpipe.models.sharded import is_sharded, read_sharded

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin", "best.ckpt", "last.ckpt", "consolidated.00.pth")
_WRAPPERS = ("ema", "weights", "model_state", "state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.")

Fetch = Callable[[str], Path | None]


def read_weights(source: str, *, wanted: str = "") -> dict[str, Tensor]:
    """Tensors of a published checkpoint, on the CPU; wrappers such as `{"model": ...}` and `module.` are taken off.

    Args:
        source: a .safetensors, .pth, .pt, .bin or .ckpt file, or a Flax checkpoint; a folder with one (or with an index of several), for
            instance a run's; a checkpoint that is a folder (`vidpipe.models.sharded`);
            `timm:NAME`; `torchvision:NAME`; or `hub:ORG/REPO` or `hub:ORG/REPO/FILE` on the Hugging Face hub.
        wanted: regular expression of keys; of a checkpoint in several files, only those that hold such keys are read.

    Raises:
        CheckpointError: the source is absent, can't be fetched or can't be read.
    """
    scheme, _, name = source.partition(":")
    if scheme == "timm":
        return _from_timm(name)
    if scheme == "torchvision":
        return _from_torchvision(name)
    if scheme == "hub":
        return _from_hub(name, wanted)
    path = Path(source)
    if path.is_dir() and not is_sharded(path):
        return _from_folder(lambda file: path / file if (path / file).exists() else None, source, wanted)
    if not path.exists():
        raise CheckpointError(
            f"weights {source}: no such file or folder (other sources: timm:NAME, torchvision:NAME, hub:ORG/REPO)"
        )
    return _read_file(path)


def _from_timm(name: str) -> dict[str, Tensor]:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise CheckpointError(f"weights timm:{name}: timm has no such model")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise _unreachable(f"timm:{name}", error) from error
    return dict(model.state_dict())


def _from_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision import models

    try:
        weights = models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise CheckpointError(f"weights torchvision:{name}: torchvision has no such model") from error
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        raise _unreachable(f"torchvision:{name}", error) from error
    return state


def _from_hub(name: str, wanted: str) -> dict[str, Tensor]:
    repository = HubRepository(name)
    try:
        return _from_repository(repository, name, wanted)
    except CheckpointError:
        if repository.unreached is not None:
            raise _unreachable(f"hub:{name}", repository.unreached) from repository.unreached
        raise


def _from_repository(repository: HubRepository, name: str, wanted: str) -> dict[str, Tensor]:
    if not repository.file:
        return _from_folder(repository.fetch, f"hub:{name}", wanted)
    path = repository.fetch(repository.file)
    if path is None:
        raise CheckpointError(f"weights hub:{name}: the repository has no file {repository.file}")
    return _read_file(path)


class HubRepository:
    """The files of a repository on the Hugging Face hub, as far as it can be reached, or else those that were fetched before.

    Attributes:
        file: that the name names, empty for none.
        unreached: why it isn't known whether the file that was asked for last is there; None where it is.
    """

    def __init__(self, name: str) -> None:
        organisation, _, rest = name.partition("/")
        repository, _, self.file = rest.partition("/")
        self._name, self._repository = name, f"{organisation}/{repository}"
        self.unreached: Exception | None = None

    def fetch(self, file: str) -> Path | None:
        """A file of it, None if there is none or it can't be known.

        Raises:
            CheckpointError: it can't be fetched.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        self.unreached = None
        try:
            return Path(hf_hub_download(self._repository, file))
        except LocalEntryNotFoundError as error:
            self.unreached = error
            return None
        except EntryNotFoundError:
            return None
        except Exception as error:
            raise _unreachable(f"hub:{self._name}", error) from error


def _unreachable(source: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"weights {source}: can't be fetched ({type(error).__name__}: {one_line(error)}); "
        "without a network, give a file's path"
    )


def _from_folder(fetch: Fetch, source: str, wanted: str) -> dict[str, Tensor]:
    for index in _INDEXES:
        path = fetch(index)
        if path is not None:
            return _read_indexed(path, fetch, source, wanted)
    for file in _WHOLE:
        path = fetch(file)
        if path is not None:
            if file == "consolidated.00.pth" and fetch("consolidated.01.pth") is not None:
                raise CheckpointError(f"weights {source}: split over several devices; only LLaMA 7B's layout is read")
            return _read_file(path)
    raise CheckpointError(f"weights {source}: expected one of {', '.join((*_INDEXES, *_WHOLE))} in it")


def _read_indexed(index: Path, fetch: Fetch, source: str, wanted: str) -> dict[str, Tensor]:
    try:
        file_of: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"weights {index}: not an index of weight files") from error
    state: dict[str, Tensor] = {}
    for file in sorted({file for key, file in file_of.items() if re.search(wanted, key)}):
        path = fetch(file) if Path(file).name == file else None
        if path is None:
            raise CheckpointError(f"weights {source}: {file}, which its index names, is absent")
        state.update({key: tensor for key, tensor in _read_file(path, strip=False).items() if re.search(wanted, key)})
    return _stripped(state)


def _read_file(path: Path, *, strip: bool = True) -> dict[str, Tensor]:
    try:
        raw = read_sharded(path) if is_sharded(path) else _load(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"weights {path}: holds more than tensors, and loading that could run code; "
            "convert it to .safetensors where you trust it"
        ) from error
    except Exception as error:
        raise CheckpointError(f"weights {path}: can't be read: {one_line(error)}") from error
    state = {key: value for key, value in _unwrapped(raw).items() if isinstance(value, Tensor)}
    if isinstance(raw, Mapping) and isinstance(raw.get("frozen"), str):  # a checkpoint of our own
        state |= read_frozen(path.parent, raw["frozen"])
    if not state:
        raise CheckpointError(f"weights {path}: holds no tensors by name")
    return _stripped(state) if strip else state


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return read_flax(path) if is_flax_file(path) else _load_pickle(path)


def _load_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    state: Mapping[str, Any] = load_file(path)
    return state


def _load_pickle(path: Path) -> Any:
    with path.open("rb") as stream:
        begin = stream.read(2)
    if begin != b"PK" and begin[:1] != b"\x80":  # a zip archive, or a pickle, which torch wrote before 1.6
        raise ValueError("is neither of torch.save's formats, .safetensors or Flax's msgpack")
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file of before torch 1.6 can't be mapped
            return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(raw: Any) -> Mapping[str, Any]:
    for wrapper in _WRAPPERS:
        inner = raw.get(wrapper) if isinstance(raw, Mapping) else None
        if isinstance(inner, Mapping) and inner:
            return inner
    return raw if isinstance(raw, Mapping) else {}


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without prefixes that all keys have, in whatever order wrappers were put around the model."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _stripped({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    return state
