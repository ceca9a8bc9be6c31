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
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vidpipe.loader import Batch
from vidpipe.loader.mixing import Mixing, mix_batch
from vidpipe.shards.manifest import Normalization
from vidpipe.train.distill import Distillation, Teacher
from vidpipe.train.objective import Objective, Shown, objective_for
from vidpipe.train.optim import Schedule
from vidpipe.train.rand_augment import RandAugment, rand_augment
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.sharding import is_dealt_out, share_buffers


@dataclass(frozen=True)
class StepResult:
    """What a step gave; tensors stay on the device until they are asked for.

    Attributes:
        loss: mean over the step's clips, a scalar.
        correct: number of clips whose label got the highest logit; None where labels are mixed.
        clips: number of clips, without padding, a scalar.
        grad_norm: norm of all gradients before clipping.
        keys: the clips' keys.
    """

    loss: Tensor
    correct: Tensor | None
    clips: Tensor
    grad_norm: Tensor
    keys: tuple[str, ...]


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
        losses, corrects, clips = [], [], []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.fabric.no_backward_sync(self.model):
                shown = self.show(batch, epoch=epoch)
                output, mask = self.objective.output(self.model, shown)
                loss = self.objective.loss(output, mask, shown)
                self.fabric.backward(loss / len(batches))
            losses.append(loss.detach())
            corrects.append(self.objective.correct(output, shown))
            clips.append(shown.real.sum())
        keys = tuple(key for batch in batches for key in batch.key)
        mean_loss = torch.stack(losses).mean()
        grad_norm = self._update(mean_loss, step=step)
        known = [correct for correct in corrects if correct is not None]
        correct = torch.stack(known).sum() if known else None
        return StepResult(mean_loss, correct, torch.stack(clips).sum(), grad_norm, keys)

    def show(self, batch: Batch, *, epoch: int) -> Shown:
        """A batch as the model is shown it."""
        video, target = self.mix(batch, epoch=epoch)
        real = ~batch.is_padding
        if self.objective.needs_labels:
            real &= batch.label >= 0
        return Shown(video=video, target=target, label=batch.label, real=real, keys=batch.clip_key, epoch=epoch)

    @cached_property
    def objective(self) -> Objective:
        """What the model is trained to do."""
        objective = objective_for(
            self.module,
            label_smoothing=self.recipe.label_smoothing,
            soft=self.mixing.is_soft,
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
                policy=RandAugment(**policy.model_dump()),
                normalization=self.normalization,
                seed=self.recipe.seed,
                epoch=epoch,
            )
        return mix_batch(
            video,
            batch.label.clamp(min=0),
            keys=batch.clip_key,
            num_classes=self.num_classes,
            mixing=self.mixing,
            clips_per_sample=self.recipe.data.clips_per_sample,
            seed=self.recipe.seed,
            epoch=epoch,
        )

    def _update(self, loss: Tensor, *, step: int) -> Tensor:
        """Update the weights; the gradients' norm before clipping."""
        grad_norm = self.clip_gradients()
        # The scaler of fp16 leaves steps out by itself.
        may_skip = self.recipe.on_nan == "skip" and self.recipe.precision != "fp16"
        if may_skip and not self._all_finite(loss, grad_norm):
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.apply_gradients(step=step)
        return grad_norm

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
            finite = cast(Tensor, self.fabric.all_reduce(finite, reduce_op="mean"))
        return bool(finite == 1.0)

    @property
    def mixing(self) -> Mixing:
        """How clips are mixed."""
        return Mixing(**self.recipe.mixing.model_dump())

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
        """Give all processes the same buffers where no forward pass does that; every process must call it."""
        if is_dealt_out(self.module):
            share_buffers(self.module)
            if self.ema is not None:
                share_buffers(self.ema.module)


def seed_step(seed: int, *, step: int, rank: int) -> None:
    """Seed torch for one step: dropout and drop path depend on (seed, step, rank) alone, so resuming needs no more."""
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)
