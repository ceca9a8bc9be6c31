"""Masked-autoencoder pretraining runs through the same loop, resumes, and its weights start a classifier."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.train.test_loop import losses, raise_signal_at
from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.objective import draw_masks

SIZES = {"patch_size": 8, "width": 24, "depth": 1, "num_heads": 2, "dropout": None}


def sizes(**more: object) -> dict[str, object]:
    return {key: value for key, value in {**SIZES, **more}.items() if value is not None}


def test_pretraining_resumes_exactly_and_fine_tuning_starts_from_it(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = toy_recipe()
    model = sizes(name="videomae-pretrain", decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5)
    recipe = base.model_copy(update={"model": type(base.model).model_validate(model)})
    whole = train(recipe, shards=toy_shards, out=tmp_path / "whole", device="cpu", quiet=True)
    assert whole.evaluation is not None
    assert "reconstruction loss" in whole.evaluation.line()
    with monkeypatch.context() as patch:
        raise_signal_at(patch, 4, signal.SIGTERM)
        train(recipe, shards=toy_shards, out=tmp_path / "parts", device="cpu", quiet=True)
    train(recipe, shards=toy_shards, out=tmp_path / "parts", resume=True, device="cpu", quiet=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    with pytest.raises(CheckpointError, match="fine-tune"):
        evaluate(tmp_path / "whole", shards=toy_shards, device="cpu")

    start = sizes(name="videomae", init=str(tmp_path / "whole/best.ckpt"))
    tuned = base.model_copy(update={"model": type(base.model).model_validate(start)})
    train(tuned, shards=toy_shards, out=tmp_path / "tuned", device="cpu", quiet=True)
    assert read_checkpoint(tmp_path / "tuned").model.name == "videomae"


def test_masks_depend_on_seed_epoch_and_key_alone() -> None:
    from vidpipe.models import create_model

    module = create_model(
        "videomae-pretrain", num_classes=1, num_frames=4, image_size=32, width=24, depth=1, num_heads=2
    )
    assert isinstance(module, VideoMAEPretrain)
    together = draw_masks(module, ["a", "b"], seed=0, epoch=3)
    assert torch.equal(together[1:], draw_masks(module, ["b"], seed=0, epoch=3))
    assert not torch.equal(together[1:], draw_masks(module, ["b"], seed=0, epoch=4))
