"""What a model computes in: `auto` follows the device in training, and what the model was trained in afterwards."""

from __future__ import annotations

import pytest
import torch

from tests.train.processes import FIRST_OF_TWO
from vidpipe.errors import UsageError
from vidpipe.train.device import make_fabric, precision_as_trained, resolve_precision


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("LOCAL_WORLD_SIZE", "0")])
def test_a_launcher_that_says_no_number_of_processes_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}: the environment says '{value}', expected a whole number"):
        make_fabric(device="cpu", precision="fp32")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"WORLD_SIZE": "", "SLURM_STEP_NUM_TASKS": "8"},
            r"one of 8 tasks of srun, .*: export RANK=\$SLURM_PROCID .*training.md",
        ),
        (
            {"LOCAL_RANK": "", "MASTER_ADDR": ""},
            "LOCAL_RANK, MASTER_ADDR: not set, but WORLD_SIZE is 2: start with torchrun",
        ),
        ({"LOCAL_WORLD_SIZE": "", "WORLD_SIZE": "4"}, "LOCAL_WORLD_SIZE: got 4, but this process sees 1 GPUs"),
        ({"RANK": "2"}, "RANK: got 2, expected less than WORLD_SIZE, 2"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK: got 3, expected less than LOCAL_WORLD_SIZE, 2"),
        ({"WORLD_SIZE": "3"}, "WORLD_SIZE: got 3, expected a multiple of LOCAL_WORLD_SIZE, 2"),
        ({}, "LOCAL_WORLD_SIZE: got 2, but this process sees 1 GPUs: .* --gpus-per-node instead"),
    ],
)
def test_a_launcher_that_starts_processes_wrongly_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], said: str
) -> None:
    for name, value in {**FIRST_OF_TWO, **changed}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=said):
        make_fabric(device="auto", precision="fp32")


def test_a_task_of_srun_may_work_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert make_fabric(device="cpu", precision="fp32").world_size == 1


def test_fp16_is_refused_where_its_loss_cannot_be_scaled() -> None:
    with pytest.raises(UsageError, match=r"precision fp16 needs a GPU.*use bf16 or fp32"):
        make_fabric(device="cpu", precision="fp16")


def test_auto_follows_the_device_and_then_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert resolve_precision("auto", "cuda") == "fp32"  # on a GPU that could only emulate bf16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert [resolve_precision("auto", device) for device in ("auto", "cuda", "cpu")] == ["bf16", "bf16", "fp32"]
    assert resolve_precision("fp16", "cuda") == "fp16"
    assert [precision_as_trained("auto", {"precision": trained}, "auto") for trained in ("fp32", "bf16", "fp16")] == [
        "fp32",
        "bf16",
        "fp16",
    ]
    assert precision_as_trained("auto", {"precision": "bf16"}, "cpu") == "fp32"
    assert precision_as_trained("bf16", {"precision": "fp32"}, "cpu") == "bf16"
