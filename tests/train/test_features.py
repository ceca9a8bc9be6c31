"""Training on features alone: the same logits as from pixels, checkpoints that work on videos, and what doesn't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from features.backbones import NAME, save_weights

from tests.train.runs import loss_curve, train_until_stopped
from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError, ShardError, UsageError
from vidpipe.features.make import FeatureJob, make_features
from vidpipe.models.weights import read_weights
from vidpipe.shards.manifest import load_manifest
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.predict import PredictOptions, predict
from vidpipe.train.recipe import TrainRecipe

SIZE = 32
MODEL = {"name": "resnet-temporal", "backbone": NAME, "width": 32, "num_heads": 4, "depth": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_weights(path)
    return path


@pytest.fixture(scope="module")
def features(toy_shards: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "out"
    make_features(FeatureJob(shards=toy_shards, out=out, backbone=NAME, weights=str(weights), size=SIZE))
    return out


@pytest.fixture(scope="module")
def recipe(toy_recipe: MakeRecipe) -> MakeRecipe:
    def make(**sections: Any) -> TrainRecipe:
        base = toy_recipe(data={"size": SIZE}, schedule={"steps": 60}, optim={"lr": 0.01}, log={"every_steps": 20})
        changed = {**base.model_dump(exclude={"model"}), "model": {**MODEL, **sections.pop("model", {})}}
        for name, value in sections.items():
            changed[name] = {**changed[name], **value} if isinstance(changed[name], dict) else value
        return TrainRecipe.model_validate(changed)

    return make


@pytest.fixture(scope="module")
def run(features: Path, recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(recipe(log={"pictures": True}), shards=features, out=out, device="cpu", quiet=True)
    return out


def test_it_learns_from_features_alone(run: Path, features: Path) -> None:
    assert evaluate(run, shards=features, device="cpu").top1 == 1.0
    assert not (run / "input.png").exists()


def test_features_and_pixels_give_the_same_probabilities(run: Path, features: Path, toy_shards: Path) -> None:
    cached = evaluate(run, shards=features, device="cpu")
    pixels = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
    assert (cached.videos, cached.clips) == (pixels.videos, pixels.clips) == (8, 16)
    assert cached.loss == pytest.approx(pixels.loss, rel=5e-3)
    for one, other in zip(cached.scores, pixels.scores, strict=True):
        assert (one.video, one.predicted) == (other.video, other.predicted)
        assert one.probability == pytest.approx(other.probability, abs=2e-3)
    mixed = evaluate(run, shards=features, device="cpu", shuffle_frames=0)
    mixed_pixels = evaluate(run, shards=toy_shards, device="cpu", backend="torch", shuffle_frames=0)
    assert mixed.loss == pytest.approx(mixed_pixels.loss, rel=5e-3) and mixed.loss != cached.loss


def test_float32_features_give_the_same_logits(run: Path, toy_shards: Path, weights: Path, tmp_path: Path) -> None:
    exact = FeatureJob(
        shards=toy_shards, out=tmp_path / "out", backbone=NAME, weights=str(weights), size=SIZE, dtype="float32"
    )
    make_features(exact)
    cached = evaluate(run, shards=tmp_path / "out", device="cpu")
    pixels = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
    assert cached.loss == pytest.approx(pixels.loss, rel=1e-5)


def test_a_checkpoint_holds_the_backbone_and_predicts_on_files(
    run: Path, features: Path, toy_shards: Path, weights: Path
) -> None:
    checkpoint = read_checkpoint(run)
    for name, tensor in read_weights(str(features / "backbone.safetensors")).items():
        assert torch.equal(checkpoint.weights[f"backbone.{name}"], tensor), name
    videos = toy_shards.parent / "videos"
    evaluation = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
    files = [videos / score.video for score in evaluation.scores]
    predictions = predict(run, files, PredictOptions(device="cpu")).predictions
    for score, prediction in zip(evaluation.scores, predictions, strict=True):
        assert prediction.top[0].probability == pytest.approx(score.probability, abs=1e-5)


def test_a_stopped_run_goes_on_bit_by_bit(features: Path, recipe: MakeRecipe, tmp_path: Path) -> None:
    short = recipe(schedule={"steps": 9}, log={"every_steps": 1})
    train(short, shards=features, out=tmp_path / "whole", device="cpu", quiet=True)
    train_until_stopped(short, features, tmp_path / "parts")
    train(short, shards=features, out=tmp_path / "parts", resume=True, device="cpu", quiet=True)
    assert loss_curve(tmp_path / "whole") == loss_curve(tmp_path / "parts")


def test_what_does_not_go_with_features(
    run: Path, features: Path, toy_shards: Path, recipe: MakeRecipe, tmp_path: Path
) -> None:
    def refused(match: str, **sections: Any) -> None:
        with pytest.raises(UsageError, match=match):
            train(recipe(**sections), shards=features, out=tmp_path / "run", device="cpu", quiet=True)
        assert not (tmp_path / "run").exists()

    refused(r"model\.backbone: got resnet18, but the features are of test_resnet", model={"backbone": "resnet18"})
    refused(r"data\.size: got 48, but .* has features of 32 x 32", data={"size": 48})
    refused("26 training clips don't fill one batch of 32", data={"batch_size": 32})
    refused("with which mixing can't be had", mixing={"cutmix": 1.0})
    refused("with which rand_augment can't be had", rand_augment={})
    unread = {"where": "label < 2", "balance": "class", "shuffle": "windowed", "on_bad": "skip"}
    refused(r"data\.where, data\.balance, data\.shuffle=windowed, data\.on_bad=skip can't be had", data=unread)
    vivit = recipe().model_copy(update={"model": type(recipe().model).model_validate({"name": "vivit-tiny"})})
    with pytest.raises(UsageError, match="which resnet-temporal takes, but not vivit-tiny"):
        train(vivit, shards=features, out=tmp_path / "run", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="all stored ones are averaged"):
        evaluate(run, shards=features, device="cpu", views=(2, 1))
    with pytest.raises(UsageError, match="nothing can be drawn"):
        evaluate(run, shards=features, device="cpu", misclassified=tmp_path / "wrong.png")


def test_a_backbone_with_other_weights_is_refused(
    features: Path, toy_shards: Path, recipe: MakeRecipe, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(other, seed=1)
    out = tmp_path / "features"
    make_features(FeatureJob(shards=toy_shards, out=out, backbone=NAME, weights=str(other), size=SIZE))
    with pytest.raises(CheckpointError, match="its backbone has other weights than the test_resnet"):
        evaluate(run, shards=out, device="cpu")
    (out / "backbone.safetensors").write_bytes((features / "backbone.safetensors").read_bytes())
    with pytest.raises(ShardError, match=r"not the weights that .* was made with"):
        train(recipe(), shards=out, out=tmp_path / "run", device="cpu", quiet=True)
    (out / "backbone.safetensors").unlink()
    with pytest.raises(ShardError, match=r"backbone\.safetensors: missing"):
        train(recipe(), shards=out, out=tmp_path / "run", device="cpu", quiet=True)


def test_a_runs_own_backbone_makes_features(run: Path, features: Path, toy_shards: Path, tmp_path: Path) -> None:
    job = FeatureJob(shards=toy_shards, out=tmp_path / "out", backbone=NAME, weights=str(run), size=SIZE)
    spec = load_manifest(features / "train").features
    assert spec is not None
    assert make_features(job).weights == spec.weights
