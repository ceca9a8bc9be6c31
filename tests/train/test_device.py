"""What a model computes in: `auto` follows the device in training, and what the model was trained in afterwards."""

from __future__ import annotations

import pytest
import torch

from vidpipe.errors import UsageError
from vidpipe.train.device import make_fabric, precision_as_trained, resolve_precision


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("LOCAL_WORLD_SIZE", "0")])
def test_a_launcher_that_says_no_number_of_processes_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}: the environment says '{value}', expected a whole number"):
        make_fabric(device="cpu", precision="fp32")


def test_auto_follows_the_device_and_then_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert [resolve_precision("auto", device) for device in ("auto", "cuda", "cpu")] == ["bf16", "bf16", "fp32"]
    assert resolve_precision("fp16", "cuda") == "fp16"
    assert [precision_as_trained("auto", {"precision": trained}, "auto") for trained in ("fp32", "bf16", "fp16")] == [
        "fp32",
        "bf16",
        "fp16",
    ]
    assert precision_as_trained("auto", {"precision": "bf16"}, "cpu") == "fp32"
    assert precision_as_trained("bf16", {"precision": "fp32"}, "cpu") == "bf16"
