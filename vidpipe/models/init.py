"""Filling a model with published weights: read, translate, fit shapes, and account for every key."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from torch import Tensor

from vidpipe.errors import CheckpointError
from vidpipe.models.base import VideoModel
from vidpipe.models.image_layouts import in_timms_names
from vidpipe.models.keymaps import FROM_IMAGES, KeyMap, find_key_map, layouts_of, translate
from vidpipe.models.misfit import differences, listed, other_shape
from vidpipe.models.positions import PositionAxis, resample_space, resample_space_time, resample_time
from vidpipe.models.state import State
from vidpipe.models.weights import read_weights

_HEAD = re.compile(r"(?:head|fc)\.(?:weight|bias)")


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave.

    Attributes:
        source: as it was named.
        layout: the published layout that was recognised.
        loaded: number of the model's tensors that were filled.
        fresh: the model's tensors that keep their random start.
        resized: positions that were interpolated and kernels that were inflated.
    """

    source: str
    layout: str
    loaded: int
    fresh: tuple[str, ...]
    resized: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.source}: {self.layout}, {self.loaded} tensors"]
        if self.fresh:
            parts.append(f"{len(self.fresh)} start afresh ({listed(self.fresh)})")
        if self.resized:
            parts.append(f"{len(self.resized)} resized ({listed(self.resized)})")
        return ", ".join(parts)


def load_pretrained(model: VideoModel, source: str, *, head: bool = True) -> LoadReport:
    """Fill `model` in place with published weights.

    A classifier of another number of classes starts afresh. Positions of another length are interpolated, and 2-D patch
    kernels become 3-D as the model's `tubelet_init` says. Everything else must fit exactly.

    Args:
        model: any model of `create_model`.
        source: as `read_weights` takes it. A `vit-llama` takes two in turn: VideoMAE's and LLaMA's.
        head: take the classifier too, where it has as many classes.

    Raises:
        CheckpointError: the source can't be read, its layout is none that the model knows, or keys are missing, unknown
            or of another shape.
    """
    layer = getattr(model, "llama_layer", None)
    raw = read_weights(source, wanted="" if layer is None else rf"layers\.{layer}\.")
    if model.family in FROM_IMAGES:
        raw = in_timms_names(raw)
    key_map = find_key_map(model, raw)
    if key_map is None:
        raise CheckpointError(
            f"weights {source}: not a layout that {type(model).__name__} can be filled from "
            f"({', '.join(dict.fromkeys(layouts_of(model)))}); its keys are {listed(list(raw))}"
        )
    state = translate(raw, key_map, model)
    if not head:
        state = {name: tensor for name, tensor in state.items() if not _HEAD.fullmatch(name)}
    resized = _fit(state, model, source)
    fresh = _account(state, model, key_map, source)
    model.load_state_dict(state, strict=False)
    return LoadReport(source, key_map.layout, loaded=len(state), fresh=fresh, resized=resized)


def inflate(kernel: Tensor, *, num_frames: int, how: str) -> Tensor:
    """A 2-D patch kernel [D, C, H, W] as a 3-D one [D, C, T, H, W].

    Args:
        num_frames: T.
        how: `central` puts it at frame T // 2 and zeros elsewhere; `average` puts 1 / T of it at every frame, so that a
            still clip embeds as the image would.
    """
    if how == "average":
        return (kernel / num_frames)[:, :, None].repeat(1, 1, num_frames, 1, 1)
    result = kernel.new_zeros(*kernel.shape[:2], num_frames, *kernel.shape[2:])
    result[:, :, num_frames // 2] = kernel
    return result


def _fit(state: State, model: VideoModel, source: str) -> tuple[str, ...]:
    """Make shapes fit where that is well defined, in place; returns the names that were changed."""
    own = model.state_dict()
    resized, wrong = [], []
    for name, tensor in list(state.items()):
        if name not in own or tensor.shape == own[name].shape:
            continue
        if _HEAD.fullmatch(name):
            del state[name]
            continue
        fitted = _fitted(name, tensor, own[name], model)
        if fitted is None or fitted.shape != own[name].shape:
            wrong.append(other_shape(name, tensor, own[name]))
        else:
            state[name] = fitted
            resized.append(name)
    if wrong:
        raise CheckpointError(
            f"weights {source}: made for another size of {type(model).__name__}: {listed(wrong)}; "
            "set the model's configuration to the checkpoint's"
        )
    return tuple(resized)


def _fitted(name: str, tensor: Tensor, own: Tensor, model: VideoModel) -> Tensor | None:
    if name.endswith("patch_embed.proj.weight") and tensor.ndim == 4 and own.ndim == 5:
        return inflate(tensor, num_frames=own.shape[2], how=getattr(model.config, "tubelet_init", "central"))
    axis = model.position_axes.get(name)
    if axis is None or tensor.ndim != 3 or tensor.shape[2] != own.shape[2]:
        return None
    return _resampled(tensor, own.shape[1] - axis.num_prefix, axis, model)


def _resampled(tensor: Tensor, num_tokens: int, axis: PositionAxis, model: VideoModel) -> Tensor | None:
    num_given = tensor.shape[1] - axis.num_prefix
    if axis.axis == "time":
        return resample_time(tensor, num_tokens, num_prefix=axis.num_prefix)
    if axis.axis == "space":
        side = math.isqrt(num_tokens)
        square = math.isqrt(num_given) ** 2 == num_given
        return resample_space(tensor, (side, side), num_prefix=axis.num_prefix) if square else None
    frames, rows, columns = getattr(model.config, "grid", (1, 1, 1))
    if num_given % (rows * columns):  # space is taken to be the same: a length alone doesn't tell both
        return None
    old = (num_given // (rows * columns), rows, columns)
    return resample_space_time(tensor, old, (frames, rows, columns), num_prefix=axis.num_prefix)


def _account(state: State, model: VideoModel, key_map: KeyMap, source: str) -> tuple[str, ...]:
    """Names that start afresh; raises if a key is missing or unknown without being on the map's list."""
    own = model.state_dict()
    fresh = [name for name in own if name not in state]
    missing = [name for name in fresh if not _HEAD.fullmatch(name) and not re.search(key_map.missing, name)]
    unknown = [name for name in state if name not in own]
    if not missing and not unknown:
        return tuple(name for name in fresh if not name.endswith("num_batches_tracked"))
    raise CheckpointError(
        f"weights {source}: read as {key_map.layout}, it {differences(missing=missing, unknown=unknown)}; "
        f"check that {type(model).__name__} is configured for this checkpoint (depth, width)"
    )
