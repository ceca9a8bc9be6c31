"""Optimiser and schedule: layer decay reaches the rates at every step; schedules are functions of the step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.models import create_model
from vidpipe.train.loop import train
from vidpipe.train.optim import RunLength, Schedule, make_optimizer, run_length
from vidpipe.train.recipe import OptimSection, ScheduleSection
from vidpipe.train.runlog import read_metrics


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


def test_cosine_may_begin_after_the_warm_up() -> None:
    section = ScheduleSection(steps=100, warmup_steps=20, min_lr=0.1, decay_after_warmup=True)
    got = rates(section, RunLength(total=100, per_epoch=10, warmup=20))
    assert got[:20] == pytest.approx([step / 20 for step in range(20)])
    assert got[20:] == pytest.approx([0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 80)) for step in range(80)])


def test_steps_and_milestones_multiply_at_epochs() -> None:
    length = RunLength(total=8, per_epoch=2, warmup=0)
    multi = rates(ScheduleSection(name="multistep", epochs=4, milestones=(1, 3)), length)
    assert multi == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    stepped = rates(ScheduleSection(name="step", epochs=4, decay_epochs=2, decay_rate=0.5), length)
    assert stepped == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])
    assert rates(ScheduleSection(name="constant", epochs=4, decay_epochs=1), length) == [1] * 8
    warm = RunLength(total=8, per_epoch=2, warmup=2)
    multi = rates(ScheduleSection(name="multistep", epochs=4, milestones=(2, 3)), warm)
    assert multi == pytest.approx([0, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])
    stepped = rates(ScheduleSection(name="step", epochs=4, decay_epochs=2, decay_rate=0.5), warm)
    assert stepped == pytest.approx([0, 0.5, 1, 1, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("metric", ["loss", "top1"])
def test_plateau_goes_by_its_metric_alone_acts_after_patience_and_goes_on_from_its_state(
    metric: Literal["loss", "top1"],
) -> None:
    section = ScheduleSection(name="plateau", epochs=9, patience=1, metric=metric)
    length = RunLength(total=9, per_epoch=1, warmup=0)
    better, optimizer = iter(range(1, 9)), one_weight()
    schedule = Schedule(optimizer, section, length)
    for worse in (0.5, 0.5, 0.4):  # as accuracies; the other metric gets better all the time
        if metric == "loss":
            schedule.evaluated(loss=1 - worse, top1=next(better) / 10)
        else:
            schedule.evaluated(loss=1 / next(better), top1=worse)
    schedule.set_step(3)
    assert schedule.lr == pytest.approx(0.1)
    again = Schedule(one_weight(), section, length)
    again.load_state_dict(schedule.state_dict())
    again.set_step(4)
    assert again.lr == pytest.approx(0.1)


def test_a_run_lowers_its_rate_when_the_loss_rests(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe(  # a rate so small that no weight changes
        optim={"lr": 1e-20, "weight_decay": 0.0},
        schedule={"name": "plateau", "warmup_steps": 0, "patience": 0, "decay_rate": 0.5},
        eval={"every_steps": 3},
    )
    with pytest.raises(UsageError, match="no 'val' split, by whose evaluation plateau would go"):
        train(recipe, shards=toy_shards / "train", out=tmp_path / "refused", device="cpu")
    assert "model.init is null: the weights start from random ones" in capsys.readouterr().err
    train(recipe, shards=toy_shards, out=tmp_path / "run", device="cpu", quiet=True)
    rates = [row["lr"] for row in read_metrics(tmp_path / "run") if "lr" in row]
    assert rates == pytest.approx([1e-20] * 6 + [5e-21] * 3, abs=0)


def test_layer_decay_scales_every_step_and_spares_norms_from_weight_decay() -> None:
    model = create_model("vivit-tiny", num_classes=4)
    section = OptimSection(name="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    optimizer = make_optimizer(model, section)
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


def test_all_rates_are_scaled_and_momentum_is_not_nesterovs() -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="momentum", lr=0.1), scale=0.25)
    assert not optimizer.defaults["nesterov"]
    section = ScheduleSection(steps=100, warmup_steps=10, warmup_lr=0.02, min_lr=0.04)
    schedule = Schedule(optimizer, section, RunLength(total=100, per_epoch=10, warmup=10), scale=0.25)
    got = []
    for step in (0, 10, 100):
        schedule.set_step(step)
        got.append(schedule.lr)
    assert got == pytest.approx([0.005, 0.01 + 0.015 * 0.5 * (1 + math.cos(math.pi * 0.1)), 0.01])


def test_wrong_settings_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"no optimiser 'adamv'.*did you mean.*adam"):
        make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="adamv", lr=1))
    with pytest.raises(UsageError, match="betas"):
        make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="sgd", lr=1, betas=(0.9, 0.99)))
    for name, momentum, match in (
        ("sgd", 0.0, r"optim\.name: sgd can't be had here with these settings: Nesterov momentum"),
        ("adahessian", 0.9, r"optim\.name: adahessian needs second derivatives"),
        ("fusedadam", 0.9, r"optim\.name: fusedadam can't be had here"),
    ):
        with pytest.raises(UsageError, match=match):
            make_optimizer(torch.nn.Linear(2, 2), OptimSection(name=name, lr=1, momentum=momentum))
    with pytest.raises(UsageError, match=r"optim\.betas: got \(0\.9, 0\.99\), which adan doesn't take"):
        make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="adan", lr=1, betas=(0.9, 0.99)))
    assert make_optimizer(torch.nn.Linear(2, 2), OptimSection(name="momentum", lr=1, momentum=0.0))
    plateau = ScheduleSection(name="plateau", epochs=1, metric="top1")
    with pytest.raises(UsageError, match=r"schedule\.metric=loss"):
        Schedule(one_weight(), plateau, RunLength(1, 1, 0)).evaluated(loss=1.0, top1=None)
    with pytest.raises(UsageError, match=r"warm-up \(10 steps\).*smaller schedule.warmup_epochs, or a longer run"):
        run_length(ScheduleSection(steps=10, warmup_epochs=1), steps_per_epoch=10)
