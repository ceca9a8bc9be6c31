"""One optimiser step: forward, loss, backward, clipping, update; and the sums that tell how it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from vidpipe.loader import Batch
from vidpipe.loader.augmentation.mixing import mix_batch
from vidpipe.loader.augmentation.randaugment import rand_augment
from vidpipe.shards.manifest import Normalization
from vidpipe.train.distill import Distillation, Teacher
from vidpipe.train.objective import Objective, Shown, objective_for
from vidpipe.train.optim import Schedule
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.sharding import broadcast_buffers


@dataclass(frozen=True)
class StepResult:
    """What a step gave; tensors stay on the device until they are asked for.

    Attributes:
        loss: this process's part, a scalar; the mean over the processes is the mean over all clips of the step.
        correct: number of this process's clips whose label got the highest logit; None where labels are mixed.
        labelled: number of this process's clips with a label, a scalar.
        clips: number of this process's clips, without padding, a scalar.
        grad_norm: norm of all gradients before clipping.
        keys: the clips' names.
        left_out: the weights were left as they are, on all processes, for a loss or gradients that are not finite on one.
    """

    loss: Tensor
    correct: Tensor | None
    labelled: Tensor
    clips: Tensor
    grad_norm: Tensor
    keys: tuple[str, ...]
    left_out: bool


@dataclass
class Learner:
    """The parts that a step changes.

    Attributes:
        module: the model itself.
        model: the same as Fabric wrapped it (precision, DDP, compilation): what forward passes go through.
        optimizer: as Fabric wrapped it.
        ema: moving average of `module`.
        normalization: that the clips have.
        teacher: to learn from too.
    """

    fabric: Fabric
    recipe: TrainRecipe
    module: nn.Module
    model: Any
    optimizer: Any
    schedule: Schedule
    ema: ModelEmaV3 | None
    normalization: Normalization
    teacher: Teacher | None = None

    def take_step(self, batches: Sequence[Batch], *, step: int, epoch: int) -> StepResult:
        """One optimiser step over the parts of a batch.

        Args:
            step: number of the step, from 0; with the seed it determines dropout.
            epoch: number of the epoch, from 0; with the seed and the key it determines how a clip is mixed.
        """
        seed_step(self.recipe.seed, step=step, rank=self.fabric.global_rank)
        self.schedule.set_step(step)
        self.model.train()
        clips = torch.stack([self.real(batch).sum() for batch in batches]).sum()
        labelled = torch.stack([(self.real(batch) & (batch.label >= 0)).sum() for batch in batches]).sum()
        weight = self.clip_weight(clips)
        before = [buffer.clone() for buffer in self.module.buffers()] if self.recipe.on_nan == "skip" else None
        losses, corrects = [], []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.fabric.no_backward_sync(self.model):
                shown = self.show(batch, epoch=epoch)
                output, mask = self.objective.output(self.model, shown)
                loss = self.loss(output, mask, shown, weight=weight)
                self.fabric.backward(loss)
            losses.append(loss.detach())
            corrects.append(self.objective.correct(output, shown))
        keys = tuple(key for batch in batches for key in batch.clip_key)
        loss = torch.stack(losses).sum()
        grad_norm, left_out = self._update(loss, step=step, before=before)
        known = [correct for correct in corrects if correct is not None]
        correct = torch.stack(known).sum() if known else None
        return StepResult(loss, correct, labelled, clips, grad_norm, keys, left_out)

    def real(self, batch: Batch) -> Tensor:
        """Which clips of a batch count, bool [B]: not padding, nor, where labels are learned, clips without one."""
        real = ~batch.is_padding
        return real & (batch.label >= 0) if self.objective.needs_labels else real

    def clip_weight(self, clips: Tensor) -> Tensor:
        """What a clip counts in this process's loss, a scalar; every process must call it.

        Gradients are averaged over the processes. With this weight their mean is the gradient of the mean over all clips
        of the step, however many of them each process and each part has.

        Args:
            clips: number of this process's clips that count in the step, a scalar.
        """
        total = clips.float()
        if self.fabric.world_size > 1:
            distributed.all_reduce(total)  # Fabric's own has the host wait at a barrier first
        return self.fabric.world_size / total.clamp(min=1)

    def loss(self, output: Tensor, mask: Tensor | None, shown: Shown, *, weight: Tensor) -> Tensor:
        """A part's loss, a scalar: the sum over the clips that count, each times `weight`."""
        return (self.objective.losses(output, mask, shown) * shown.real).sum() * weight

    def show(self, batch: Batch, *, epoch: int) -> Shown:
        """A batch as the model is shown it."""
        video, target = self.mix(batch, epoch=epoch)
        return Shown(
            video=video,
            target=target,
            label=batch.label,
            real=self.real(batch),
            keys=batch.clip_key,
            epoch=epoch,
        )

    @cached_property
    def objective(self) -> Objective:
        """What the model is trained to do."""
        objective = objective_for(
            self.module,
            label_smoothing=self.recipe.label_smoothing,
            soft=self.recipe.mixing.is_soft,
            seed=self.recipe.seed,
        )
        return objective if self.teacher is None else Distillation(objective, self.module, self.teacher)

    def mix(self, batch: Batch, *, epoch: int) -> tuple[Tensor, Tensor]:
        """The batch's clips and labels, augmented and mixed as the recipe says."""
        video, policy = batch.video, self.recipe.rand_augment
        if policy is not None:
            video = rand_augment(
                video,
                keys=batch.clip_key,
                policy=policy,
                normalization=self.normalization,
                seed=self.recipe.seed,
                epoch=epoch,
            )
        video, target = mix_batch(
            video,
            batch.label,
            keys=batch.clip_key,
            num_classes=self.num_classes,
            mixing=self.recipe.mixing,
            clips_per_sample=self.recipe.data.clips_per_sample,
            seed=self.recipe.seed,
            epoch=epoch,
        )
        return video, target.clamp(min=0)

    def _update(self, loss: Tensor, *, step: int, before: Sequence[Tensor] | None) -> tuple[Tensor, bool]:
        """Update the weights, unless the step is unsound and may be left out; the gradients' norm before clipping, and whether it was.

        Args:
            before: the model's buffers before the forward pass, which has put what it saw into running statistics; None
                where no step is left out.
        """
        grad_norm = self.clip_gradients()
        if before is not None and not self._all_finite(loss, grad_norm):
            for buffer, old in zip(self.module.buffers(), before, strict=True):
                buffer.copy_(old)
            if self.recipe.precision != "fp16":  # whose scaler has to be told of the step, and leaves it out by itself
                self.optimizer.zero_grad(set_to_none=True)
                return grad_norm, True
        self.apply_gradients(step=step)
        return grad_norm, False

    def clip_gradients(self) -> Tensor:
        """Clip as the recipe says; the norm of all gradients of all processes before that."""
        max_norm = math.inf if self.recipe.optim.clip_grad is None else self.recipe.optim.clip_grad
        norm: Any = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        return cast(Tensor, norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def apply_gradients(self, *, step: int) -> None:
        """Update weights and moving average, and clear the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.module, step=step + 1)

    def _all_finite(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Whether the step is sound on every process."""
        finite = (torch.isfinite(loss) & torch.isfinite(grad_norm)).float()
        if self.fabric.world_size > 1:
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        return bool(finite)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return int(cast(int, self.module.num_classes))

    @property
    def evaluated_module(self) -> nn.Module:
        """What is evaluated: the moving average if one is kept."""
        if self.ema is None:
            return self.module
        averaged: nn.Module = self.ema.module
        return averaged

    def share_buffers(self) -> None:
        """Give all processes the same running statistics, the first one's; every process must call it.

        DDP does that before each forward pass in training, so after the last one they differ; FSDP never does it.
        """
        if self.fabric.world_size > 1:
            broadcast_buffers(self.module)
            if self.ema is not None:
                broadcast_buffers(self.ema.module)


def seed_step(seed: int, *, step: int, rank: int) -> None:
    """Seed torch for one step: dropout and drop path depend on (seed, step, rank) alone, so resuming needs no more."""
    torch.manual_seed(((seed * 1_000_003 + step) * 65_537 + rank) % 2**63)
