"""The numbers of a step against formulas written out by hand: moving average, smoothed labels, clipping; and the picture of its input."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from tests.train.toy import MakeRecipe
from vidpipe.loader import Batch
from vidpipe.shards.manifest import load_manifest
from vidpipe.train.checkpoint import Checkpoint, build_model, read_checkpoint
from vidpipe.train.data import open_train_loader
from vidpipe.train.loop import train
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.runlog import read_metrics

SHORT: dict[str, Any] = {"schedule": {"steps": 6, "warmup_steps": 0}, "eval": {"every_epochs": 0}}
EVERY_STEP = {"checkpoint": {"every_steps": 1, "keep_last": 10}}


def every_checkpoint(recipe: TrainRecipe, shards: Path, out: Path) -> list[Checkpoint]:
    train(recipe, shards=shards, out=out, device="cpu", quiet=True)
    return [read_checkpoint(path) for path in sorted(out.glob("step-*.ckpt"))]


def batches(recipe: TrainRecipe, shards: Path) -> list[Batch]:
    """What the steps of the first epoch see."""
    with open_train_loader(shards, recipe.data, accumulate=1, device="cpu", seed=recipe.seed) as loader:
        return list(loader)


def test_the_moving_average_follows_its_recurrence(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    """The decay is 0.6, but 0, 0.37, 0.52 in the first three steps."""
    checkpoints = every_checkpoint(toy_recipe(**SHORT, **EVERY_STEP, ema=0.6), toy_shards, tmp_path)
    assert [checkpoint.step for checkpoint in checkpoints] == [1, 2, 3, 4, 5, 6]
    average = checkpoints[0].weights
    for number, checkpoint in enumerate(checkpoints, start=1):
        decay = min(0.6, 1 - number ** (-2 / 3))
        average = {name: decay * average[name] + (1 - decay) * new for name, new in checkpoint.weights.items()}
        assert checkpoint.ema is not None and checkpoint.ema.keys() == average.keys()
        for name, weight in checkpoint.ema.items():
            torch.testing.assert_close(weight, average[name], rtol=1e-5, atol=1e-7, msg=f"step {number}: {name}")


def test_smoothed_labels_give_the_loss_of_the_formula(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    """In the third step, whose logits differ by then."""
    recipe = toy_recipe(**SHORT, **EVERY_STEP, label_smoothing=0.4, model={"dropout": 0.0}, optim={"lr": 0.03})
    checkpoints = every_checkpoint(recipe, toy_shards, tmp_path)
    batch = batches(recipe, toy_shards)[2]
    with torch.no_grad():
        logs = build_model(checkpoints[1])(batch.video).log_softmax(dim=1)
    own = logs.gather(1, batch.label[:, None]).squeeze(1)
    loss = read_metrics(tmp_path)[2]["loss"]
    assert read_metrics(tmp_path)[2]["top1"] == pytest.approx(float((logs.argmax(dim=1) == batch.label).float().mean()))
    assert loss == pytest.approx(float(-(0.6 * own + 0.4 * logs.mean(dim=1)).mean()), rel=1e-4)
    assert loss != pytest.approx(float(-own.mean()), rel=1e-2)


def test_clipped_gradients_move_the_weights_so_far_and_no_further(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Of plain gradient descent the length of a step is the rate times the gradients' norm, which is 0.01 at most."""
    plain = {"name": "momentum", "momentum": 0.0, "lr": 0.5, "weight_decay": 0.0, "clip_grad": 0.01}
    constant = {"name": "constant", "steps": 3, "warmup_steps": 0}
    recipe = toy_recipe(**{**SHORT, "schedule": constant}, **EVERY_STEP, optim=plain)
    checkpoints = every_checkpoint(recipe, toy_shards, tmp_path)
    assert all(row["grad_norm"] > 0.1 for row in read_metrics(tmp_path))
    for before, after in pairwise(checkpoints):
        moved = torch.cat([(after.weights[name] - old).flatten() for name, old in before.weights.items()])
        assert float(moved.norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def holds(picture: NDArray[np.uint8], frame: NDArray[np.uint8]) -> bool:
    """Whether a picture shows a frame somewhere, enlarged by some whole factor."""
    for factor in range(1, 13):
        large = frame.repeat(factor, axis=0).repeat(factor, axis=1)
        rows = sliding_window_view(picture, (1, large.shape[1], 3))[..., 0, :, :].squeeze(2)
        for top, left in np.argwhere((rows[:, :, ::factor] == large[0, ::factor]).all(axis=(2, 3))):
            if np.array_equal(picture[top : top + large.shape[0], left : left + large.shape[1]], large):
                return True
    return False


def test_the_picture_of_the_input_shows_the_pixels_of_the_first_batch(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = toy_recipe(**SHORT, log={"pictures": True})
    train(recipe, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    picture = np.asarray(Image.open(tmp_path / "input.png").convert("RGB"))
    batch, normal = batches(recipe, toy_shards)[0], load_manifest(toy_shards / "train").normalization
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normal.mean, normal.std))
    for clip in (0, 7):
        pixels = (batch.video[clip, :, 0] * std + mean).clamp(0, 1) * 255
        assert holds(picture, pixels.round().byte().permute(1, 2, 0).numpy())
