"""Optimiser and learning-rate schedule of a recipe, both timm's: only its schedules apply layer decay's `lr_scale`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import timm.optim
import timm.scheduler
import torch
from torch import nn

from vidpipe.errors import UsageError
from vidpipe.recipes import nearest
from vidpipe.train.recipe import OptimSection, ScheduleSection

_timm_optim: Any = timm.optim  # timm's annotations don't mark what it exports, nor times that are fractions
_timm_scheduler: Any = timm.scheduler


def make_optimizer(model: nn.Module, section: OptimSection, *, scale: float = 1.0) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that are trained.

    Args:
        scale: factor on the rate, see `TrainRecipe.rate_scale`.

    Raises:
        UsageError: timm has no such optimiser, it doesn't take one of the settings, or it can't be made here.
    """
    known = _timm_optim.list_optimizers()
    if section.name not in known:
        raise UsageError(f"optim.name: no optimiser {section.name!r} in timm{nearest(section.name, known)}")
    info = _timm_optim.get_optimizer_info(section.name)
    if info.second_order:
        raise UsageError(f"optim.name: {section.name} needs second derivatives, which training doesn't compute")
    extra: dict[str, Any] = {}
    two_betas = info.has_betas and info.num_betas == 2
    for setting, value, taken in (("betas", section.betas, two_betas), ("eps", section.eps, info.has_eps)):
        if value is not None and not taken:
            raise UsageError(f"optim.{setting}: got {value}, which {section.name} doesn't take; leave it out")
        if value is not None:
            extra[setting] = value
    try:
        optimizer: torch.optim.Optimizer = _timm_optim.create_optimizer_v2(
            model,
            opt=section.name,
            lr=section.lr * scale,
            weight_decay=section.weight_decay,
            momentum=section.momentum,
            layer_decay=section.layer_decay,
            **extra,
        )
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:  # each optimiser has its own
        raise UsageError(f"optim.name: {section.name} can't be had here with these settings: {error}") from error
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Any]:
    """The optimiser's state by the names of the module's parameters, which mean the same at any number of processes."""
    state, names = optimizer.state_dict(), _parameter_names(optimizer, module)
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[number]: value for number, value in state["state"].items()}, "param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: dict[str, Any]) -> None:
    """Take back what `optimizer_state` gave.

    Raises:
        KeyError, ValueError: it is of other parameters or another optimiser.
    """
    numbers = {name: number for number, name in enumerate(_parameter_names(optimizer, module))}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
    by_number = {numbers[name]: value for name, value in state["state"].items()}
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})


def _parameter_names(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[str]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class RunLength:
    """Optimiser steps of a run.

    Attributes:
        total: steps of the whole run.
        per_epoch: steps of one epoch.
        warmup: steps of the warm-up; may be a fraction.
    """

    total: int
    per_epoch: int
    warmup: float


def run_length(section: ScheduleSection, *, steps_per_epoch: int) -> RunLength:
    """How long a run is on data whose epoch has `steps_per_epoch` optimiser steps."""
    total = section.steps if section.steps is not None else max(1, round((section.epochs or 0) * steps_per_epoch))
    warmup = float(section.warmup_steps or 0) + (section.warmup_epochs or 0.0) * steps_per_epoch
    if warmup >= total:
        name = "warmup_steps" if section.warmup_steps else "warmup_epochs"
        raise UsageError(
            f"schedule: the warm-up ({warmup:g} steps) is not shorter than the run ({total} steps); set a smaller "
            f"schedule.{name}, or a longer run (--epochs; an epoch has {steps_per_epoch} steps)"
        )
    return RunLength(total=total, per_epoch=steps_per_epoch, warmup=warmup)


class Schedule:
    """Sets the optimiser's rates for each step; a pure function of the step, but for plateau's factor.

    Args:
        scale: factor on the section's rates, that with which the optimiser was made.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, section: ScheduleSection, length: RunLength, *, scale: float = 1.0
    ) -> None:
        self._optimizer = optimizer
        self._section = section
        after = section.decay_after_warmup
        fall = {
            "t_initial": length.total - (length.warmup if after else 0),
            "warmup_prefix": after,
            "lr_min": section.min_lr * scale,
        }
        warmup = {"warmup_t": length.warmup, "warmup_lr_init": section.warmup_lr * scale, "t_in_epochs": False}
        self._timm: Any
        if section.name == "cosine":
            self._timm = _timm_scheduler.CosineLRScheduler(optimizer, **fall, **warmup)
        elif section.name == "poly":
            self._timm = _timm_scheduler.PolyLRScheduler(optimizer, power=section.decay_rate, **fall, **warmup)
        elif section.name == "multistep":
            # timm looks one step ahead here, for schedules that are stepped by epochs
            milestones = [at * length.per_epoch + 1 for at in section.milestones]
            self._timm = _timm_scheduler.MultiStepLRScheduler(
                optimizer, milestones, decay_rate=section.decay_rate, warmup_prefix=False, **warmup
            )
        else:
            steps = section.decay_epochs * length.per_epoch
            rate = section.decay_rate if section.name == "step" else 1.0
            self._timm = _timm_scheduler.StepLRScheduler(
                optimizer, steps, decay_rate=rate, warmup_prefix=False, **warmup
            )
        self._factor, self._best, self._bad = 1.0, -math.inf, 0
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Set the rates for optimiser step number `step`, counted from 0."""
        self._timm.step_update(step)
        if self._factor != 1.0:
            for group in self._optimizer.param_groups:
                group["lr"] *= self._factor

    def evaluated(self, *, loss: float, top1: float | None) -> None:
        """Take note of an evaluation; plateau lowers the rates when what it goes by no longer gets better.

        Args:
            top1: None where nothing is classified.

        Raises:
            UsageError: plateau is to go by an accuracy that there isn't.
        """
        if self._section.name != "plateau":
            return
        score = -loss if self._section.metric == "loss" else top1
        if score is None:
            raise UsageError("schedule.metric top1: this model names no classes; set schedule.metric=loss")
        if score > self._best:
            self._best, self._bad = score, 0
            return
        self._bad += 1
        if self._bad > self._section.patience:
            self._factor, self._bad = self._factor * self._section.decay_rate, 0

    @property
    def lr(self) -> float:
        """The highest rate of all parameter groups, which is the one that the recipe names."""
        return float(max(group["lr"] for group in self._optimizer.param_groups))

    def state_dict(self) -> dict[str, float]:
        """What is not a function of the step."""
        return {"factor": self._factor, "best": self._best, "bad": self._bad}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take back what `state_dict` gave; `set_step` then sets the rates."""
        self._factor, self._best, self._bad = state["factor"], state["best"], int(state["bad"])
