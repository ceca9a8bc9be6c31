"""How the pixels were normalised that published weights learned from, as far as their source says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidpipe.models.weights import HubRepository
from vidpipe.shards.manifest import Normalization


def trained_normalization(source: str) -> Normalization | None:
    """The mean and std that go with weights; None where their source doesn't say.

    timm and torchvision say it of each of their names, and a repository or folder of Hugging Face's layout in
    preprocessor_config.json (`image_mean`) or, of timm's models, in config.json (`pretrained_cfg`).

    Args:
        source: that `vidpipe.models.weights.read_weights` has read.

    Raises:
        CheckpointError: the hub can't be reached.
    """
    scheme, _, name = source.partition(":")
    if scheme == "timm":
        import timm

        settings = timm.get_pretrained_cfg(name)
        return _normalization(settings.mean, settings.std) if settings else None
    if scheme == "torchvision":
        from torchvision import models

        transforms = models.get_model_weights(name).DEFAULT.transforms()
        return _normalization(transforms.mean, transforms.std)
    fetch = HubRepository(name).fetch if scheme == "hub" else lambda file: Path(source) / file
    processor = _read(fetch("preprocessor_config.json"))
    if "image_mean" in processor:
        # With an `offset`, values were moved before they were normalised.
        plain = processor.get("do_normalize", True) and not processor.get("offset")
        return _normalization(processor["image_mean"], processor.get("image_std")) if plain else None
    timms = _read(fetch("config.json")).get("pretrained_cfg")
    if not isinstance(timms, Mapping):
        return None
    return _normalization(timms.get("mean"), timms.get("std"))


def _read(path: Path | None) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, Mapping) else {}


def _normalization(mean: Any, std: Any) -> Normalization | None:
    try:
        return Normalization(mean=mean, std=std)
    except ValueError:
        return None
