"""What a user types, with the models on a GPU: each command once, on small clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import RunCommand
from features.backbones import NAME, save_weights

from vidpipe.bench.gpu.models import MODELS

pytestmark = pytest.mark.gpu

(PRETRAINING,) = [model for model in MODELS if model.recipe == "videomae-pretrain"]


def test_a_run_goes_through_all_commands(
    codec_shards: dict[str, Path], cuda: torch.device, vidpipe: RunCommand, tmp_path: Path
) -> None:
    def ran(*arguments: object, sets: tuple[str, ...] = ()) -> str:
        result = vidpipe(*arguments, *(word for value in sets for word in ("--set", value)), "--device", cuda.type)
        assert result.code == 0, result.err
        return result.out

    clips, run = ("--shards", codec_shards["jpeg"], "--batch-size", 8), tmp_path / "run"
    brief = (f"precision={'bf16' if cuda.type == 'cuda' else 'fp32'}", "schedule.warmup_steps=0", "eval.every_epochs=1")
    training = ("train", "vivit-tiny", *clips, "--out", run)
    assert "batch 8 x 3 x 8 x 32 x 32" in ran(*training, "--dry-run", sets=brief)
    ran(*training, "--epochs", 2, sets=brief)
    ran(*training, "--epochs", 3, "--resume", sets=brief)
    evaluated = json.loads(ran("eval", run, "--shards", codec_shards["tensor"], "--views", "2x3", "--json"))
    assert evaluated["videos"] == 16 and 0 <= evaluated["top1"] <= 1
    video = min((codec_shards["tensor"] / "videos").rglob("*.mp4"))
    (predicted,) = json.loads(ran("predict", run, video, "--workers", 1, "--json"))
    assert len(predicted["top"]) == 5

    narrow = (*brief[:1], "schedule.warmup_epochs=0", "data.frames=8", "data.stride=null", *PRETRAINING.narrow)
    ran("train", PRETRAINING.recipe, *clips, "--epochs", 1, "--out", tmp_path / "pretrained", sets=narrow)

    weights, features = tmp_path / "weights.safetensors", tmp_path / "features"
    save_weights(weights)
    backbone = ("--backbone", NAME, "--weights", weights, "--size", 64)
    ran("features", codec_shards["jpeg"], *backbone, "--out", features)
    learning = ("--shards", features, "--batch-size", 8, "--frames", 8, "--epochs", 1, "--out", tmp_path / "temporal")
    ran(
        "train",
        "resnet-temporal",
        *learning,
        sets=(f"model.backbone={NAME}", "data.size=64", "schedule.warmup_epochs=0"),
    )
