"""Distillation: a model learns from the logits of a frozen teacher, and from how the teacher's tokens relate to each other.

Logits: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 2. Relations: Zhang et al., "MiniViT"
(2022), section 3.3, with one relation head, between the last spatial layers of two factorised encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.errors import CheckpointError, UsageError
from vidpipe.models.fingerprint import fingerprint
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.models.vivit import ViViT, ViViTConfig
from vidpipe.train.checkpoint import Checkpoint, Preprocessing, build_classifier, check_classes, read_checkpoint
from vidpipe.train.objective import Objective, Shown
from vidpipe.train.recipe import DistillSection


@dataclass(frozen=True)
class Teacher:
    """A trained model that is only asked.

    Attributes:
        module: in eval mode, without gradients; no part of the model that is trained, of its optimiser or its checkpoints.
        fingerprint: of its weights, by which a resumed run knows it again.
        autocast: makes the context of its forward passes.
    """

    module: nn.Module
    section: DistillSection
    fingerprint: str
    autocast: Callable[[], AbstractContextManager[Any]]

    def logits(self, video: Tensor) -> Tensor:
        """Float32 [B, K] of clips [B, 3, T, H, W]."""
        with torch.no_grad(), self.autocast():
            result: Tensor = self.module(video)
        return result.float()


def load_teacher(
    section: DistillSection,
    student: nn.Module,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Teacher:
    """The teacher that a recipe names, for a student and its clips.

    Raises:
        CheckpointError: it can't be read, or learned other classes or other clips.
        UsageError: the student is in pretraining; or relations are asked for, but student or teacher is no factorised encoder, or their grids differ.
    """
    if isinstance(student, VideoMAEPretrain):
        raise UsageError("distill: masked pretraining names no classes that a teacher could know; leave it out")
    checkpoint = read_checkpoint(Path(section.teacher))
    check_classes(checkpoint, preprocessing.classes, shards="the shards")
    _check_clips(checkpoint, preprocessing)
    module = build_classifier(checkpoint).requires_grad_(False)
    if section.qkv_weight or section.hidden_weight:
        grids = [_grid(model) for model in (student, module)]
        if None in grids or grids[0] != grids[1]:
            raise UsageError(
                "distill.qkv_weight and distill.hidden_weight need two factorised encoders (vivit, mini-vivit) with the "
                f"same grid of tubelets, got {type(student).__name__} {grids[0]} and {type(module).__name__} {grids[1]}; "
                "set both to 0"
            )
    return Teacher(module.to(device), section, fingerprint(module.state_dict()), autocast)


def _check_clips(checkpoint: Checkpoint, preprocessing: Preprocessing) -> None:
    for name in ("frames", "size", "normalization"):
        theirs, ours = getattr(checkpoint.preprocessing, name), getattr(preprocessing, name)
        if theirs != ours:
            raise CheckpointError(
                f"teacher {checkpoint.path}: learned from clips with {name} {theirs}, but this run's have {ours}; "
                "train on clips like the teacher's, or take another teacher"
            )


def _grid(model: nn.Module) -> tuple[int, int, int] | None:
    return model.config.grid if isinstance(model, ViViT) and isinstance(model.config, ViViTConfig) else None


@dataclass(frozen=True)
class Distillation:
    """An objective, with a teacher's part: (1 - weight) x loss + weight x T^2 x KL(teacher || student) + relations.

    Attributes:
        base: the objective on the labels.
        student: the model that is trained, unwrapped.
    """

    base: Objective
    student: nn.Module
    teacher: Teacher

    @property
    def needs_labels(self) -> bool:
        """As the objective on the labels, as long as that has a part."""
        return self.teacher.section.weight < 1 and self.base.needs_labels

    def output(self, model: Callable[..., Any], shown: Shown) -> tuple[Tensor, Tensor | None]:
        """The student's logits."""
        for listener in self._listeners:
            listener.active = True
        return self.base.output(model, shown)

    def losses(self, output: Tensor, mask: Tensor | None, shown: Shown) -> Tensor:
        """The sums of all parts."""
        section, teacher = self.teacher.section, self.teacher.logits(shown.video)
        per_clip = section.weight * soft_loss(output, teacher, temperature=section.temperature)
        if self._listeners:
            (student_qkv, student_hidden), (teacher_qkv, teacher_hidden) = (tap.heard() for tap in self._listeners)
            if section.qkv_weight:
                per_clip = per_clip + section.qkv_weight * qkv_loss(student_qkv, teacher_qkv, clips=len(output))
            if section.hidden_weight:
                relations = hidden_loss(student_hidden, teacher_hidden, clips=len(output))
                per_clip = per_clip + section.hidden_weight * relations
        if section.weight < 1:
            per_clip = per_clip + (1 - section.weight) * self.base.losses(output, mask, shown)
        return per_clip

    def correct(self, output: Tensor, shown: Shown) -> Tensor | None:
        """As the objective on the labels."""
        return self.base.correct(output, shown)

    @cached_property
    def _listeners(self) -> tuple[_Listener, ...]:
        """The student's and the teacher's; none where relations have no weight."""
        if not (self.teacher.section.qkv_weight or self.teacher.section.hidden_weight):
            return ()
        models = (self.student, self.teacher.module)
        return tuple(_Listener(model) for model in models if isinstance(model, ViViT))


class _Listener:
    """Hears what a factorised encoder's last spatial layer computes, between `active = True` and `heard()`."""

    def __init__(self, model: ViViT) -> None:
        self.active = False
        self._qkv: Tensor | None = None
        self._hidden: Tensor | None = None
        block = model.spatial.blocks[-1]
        # Where layers share a block, its projection runs once for each of them: the last one's output stays.
        block.get_submodule("attn.qkv").register_forward_hook(self._take_qkv)
        block.register_forward_hook(self._take_hidden)

    def _take_qkv(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.active:  # not while activations are computed again in the backward pass
            self._qkv = output

    def _take_hidden(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.active:
            self._hidden = output

    def heard(self) -> tuple[Tensor, Tensor]:
        """Queries, keys and values [M, N, 3 * width] and tokens [M, N, width] of the layer, float32; M: clips x T'."""
        qkv, hidden = self._qkv, self._hidden
        self.active, self._qkv, self._hidden = False, None, None
        if qkv is None or hidden is None:
            raise RuntimeError("the model's spatial encoder did not run")
        return qkv.float(), hidden.float()


def soft_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 x KL(teacher || student) of logits [B, K] softened by T: [B]. T^2 keeps the gradients' size over T."""
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=1) * temperature**2


def qkv_loss(student: Tensor, teacher: Tensor, *, clips: int) -> Tensor:
    """Cross entropy of the student's attention relations under the teacher's, over the nine pairs of Q, K and V: [B].

    Args:
        student, teacher: [M, N, 3 * width]; the widths may differ.
    """
    total: Tensor = torch.zeros(clips, device=student.device)
    ours, theirs = student.chunk(3, dim=2), teacher.chunk(3, dim=2)
    for i, j in product(range(3), repeat=2):
        log_relation, relation = (
            parts[i] @ parts[j].transpose(1, 2) / parts[i].shape[2] ** 0.5 for parts in (ours, theirs)
        )
        entropy = -(relation.softmax(dim=2) * log_relation.log_softmax(dim=2)).sum(dim=2)
        total = total + entropy.view(clips, -1).mean(dim=1)
    return total / 9


def hidden_loss(student: Tensor, teacher: Tensor, *, clips: int) -> Tensor:
    """Squared difference of the tokens' cosine similarities, summed over the tokens that one token relates to: [B].

    Args:
        student, teacher: [M, N, width]; the widths may differ.
    """
    ours, theirs = (F.normalize(tokens, dim=2) for tokens in (student, teacher))
    difference = ours @ ours.transpose(1, 2) - theirs @ theirs.transpose(1, 2)
    return difference.square().sum(dim=2).view(clips, -1).mean(dim=1)
