"""A frozen block is written once, beside the checkpoints that leave it out; nothing else is different."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.train.runs import loss_curve, train_until_stopped
from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError
from vidpipe.models import create_model
from vidpipe.models.init import load_pretrained
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.recipe import TrainRecipe

MODEL = {
    "name": "vit-llama",
    "patch_size": 8,
    "width": 24,
    "depth": 1,
    "num_heads": 2,
    "llama_width": 32,
    "llama_heads": 2,
    "llama_hidden": 48,
    "head_scale": 1.0,
}


def recipe(toy_recipe: MakeRecipe) -> TrainRecipe:
    return TrainRecipe.model_validate({**toy_recipe(ema=0.9).model_dump(exclude={"model"}), "model": MODEL})


@pytest.fixture(scope="module")
def run(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(recipe(toy_recipe), shards=toy_shards, out=out, device="cpu", quiet=True)
    return out


def test_checkpoints_leave_it_out_and_are_read_with_it(run: Path, toy_shards: Path) -> None:
    assert len(list(run.glob("frozen-*.pt"))) == 1
    for path in run.glob("step-*.ckpt"):
        stored = torch.load(path, weights_only=True)
        for part in ("weights", "ema"):
            assert stored[part]
            assert not any(name.startswith("llama.") for name in stored[part])
    checkpoint = read_checkpoint(run)
    model = create_model("vit-llama", num_classes=4, **checkpoint.model.config)
    assert checkpoint.weights.keys() == checkpoint.best_weights().keys() == model.state_dict().keys()
    assert evaluate(run, shards=toy_shards, device="cpu", backend="torch").videos == 8


def test_a_stopped_run_goes_on_with_the_same_block(
    run: Path, toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train_until_stopped(recipe(toy_recipe), toy_shards, tmp_path)
    train(recipe(toy_recipe), shards=toy_shards, out=tmp_path, resume=True, device="cpu", quiet=True)
    assert loss_curve(run) == loss_curve(tmp_path)
    assert [path.name for path in run.glob("frozen-*")] == [path.name for path in tmp_path.glob("frozen-*")]


def test_weights_to_start_from_have_it_too(run: Path) -> None:
    checkpoint = read_checkpoint(run)
    model = create_model("vit-llama", num_classes=4, **checkpoint.model.config)
    report = load_pretrained(model, str(run))
    assert not report.fresh
    assert torch.equal(model.state_dict()["llama.block.wq.weight"], checkpoint.weights["llama.block.wq.weight"])


def test_without_it_or_with_another_a_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "last.ckpt", tmp_path / "alone.ckpt")
    with pytest.raises(CheckpointError, match=r"frozen-\w+\.pt: missing.*copy it too"):
        read_checkpoint(tmp_path / "alone.ckpt")
    (name,) = (path.name for path in run.glob("frozen-*.pt"))
    state = torch.load(run / name, weights_only=True)
    state["llama.block.wq.weight"][0, 0] += 1
    torch.save(state, tmp_path / name)
    with pytest.raises(CheckpointError, match="its content is not what its name says"):
        read_checkpoint(tmp_path / "alone.ckpt")
