"""Optimiser and schedule: layer decay reaches the rates at every step; schedules are functions of the step."""

from __future__ import annotations

import math

import pytest
import torch

from vidpipe.errors import UsageError
from vidpipe.models import create_model
from vidpipe.train.optim import RunLength, Schedule, make_optimizer, run_length
from vidpipe.train.recipe import OptimSection, ScheduleSection


def one_weight(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(section: ScheduleSection, length: RunLength) -> list[float]:
    optimizer = one_weight()
    schedule = Schedule(optimizer, section, length)
    result = []
    for step in range(length.total):
        schedule.set_step(step)
        result.append(optimizer.param_groups[0]["lr"])
    return result


def test_cosine_warms_up_linearly_and_falls_to_nearly_nothing() -> None:
    got = rates(ScheduleSection(steps=100, warmup_steps=10), RunLength(total=100, per_epoch=10, warmup=10))
    assert got[:10] == pytest.approx([step / 10 for step in range(10)])
    assert got[50] == pytest.approx(0.5)
    assert got[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_steps_and_milestones_multiply_at_epochs() -> None:
    length = RunLength(total=8, per_epoch=2, warmup=0)
    multi = rates(ScheduleSection(name="multistep", epochs=4, milestones=(1, 3)), length)
    assert multi == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    stepped = rates(ScheduleSection(name="step", epochs=4, decay_epochs=2, decay_rate=0.5), length)
    assert stepped == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])


def test_plateau_divides_after_patience_and_goes_on_from_its_state() -> None:
    section, length = ScheduleSection(name="plateau", epochs=9, patience=1), RunLength(total=9, per_epoch=1, warmup=0)
    optimizer = one_weight()
    schedule = Schedule(optimizer, section, length)
    for score in (0.5, 0.5, 0.4):
        schedule.evaluated(score)
    schedule.set_step(3)
    assert schedule.lr == pytest.approx(0.1)
    again = Schedule(one_weight(), section, length)
    again.load_state_dict(schedule.state_dict())
    again.set_step(4)
    assert again.lr == pytest.approx(0.1)


def test_layer_decay_scales_every_step_and_spares_norms_from_weight_decay() -> None:
    model = create_model("vivit-tiny", num_classes=4)
    section = OptimSection(name="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    optimizer = make_optimizer(model, section, batch_size=8)
    schedule = Schedule(optimizer, ScheduleSection(steps=10), RunLength(total=10, per_epoch=5, warmup=0))
    schedule.set_step(5)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    head = group_of[id(parameters["head.weight"])]
    stem = group_of[id(next(p for name, p in parameters.items() if name.startswith("patch_embed")))]
    assert head["lr"] == pytest.approx(0.5)
    assert 0 < stem["lr"] < 0.5**3
    assert schedule.lr == pytest.approx(0.5)
    assert group_of[id(parameters["spatial.pos_embed"])]["weight_decay"] == 0
    assert head["weight_decay"] == 0.1


def test_rate_scales_with_the_batch_where_asked() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(model, OptimSection(name="momentum", lr=0.1, lr_batch=64), batch_size=16)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    assert not optimizer.defaults["nesterov"]


def test_wrong_settings_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"no optimiser 'adamv'.*did you mean.*adam"):
        make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="adamv", lr=1), batch_size=1)
    with pytest.raises(UsageError, match="betas"):
        make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="sgd", lr=1, betas=(0.9, 0.99)), batch_size=1)
    with pytest.raises(UsageError, match="warm-up"):
        run_length(ScheduleSection(steps=5, warmup_epochs=1), steps_per_epoch=10)
