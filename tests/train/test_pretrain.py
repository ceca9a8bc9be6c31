"""Masked-autoencoder pretraining runs through the same loop, resumes, and its weights start a classifier."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.train.runs import loss_curve, train_until_stopped
from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError
from vidpipe.loader import Loader
from vidpipe.models import create_model
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.shards.manifest import Normalization
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.objective import draw_masks
from vidpipe.train.reconstructions import FOLDER, Reconstructions

SIZES = {"patch_size": 8, "width": 24, "depth": 1, "num_heads": 2, "dropout": None}


def sizes(**more: object) -> dict[str, object]:
    return {key: value for key, value in {**SIZES, **more}.items() if value is not None}


def test_pretraining_resumes_exactly_and_fine_tuning_starts_from_it(
    toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = toy_recipe(log={"pictures": True}, eval={"every_epochs": 3})
    model = sizes(name="videomae-pretrain", decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5)
    recipe = base.model_copy(update={"model": type(base.model).model_validate(model)})
    whole = train(recipe, shards=toy_shards, out=tmp_path / "whole", device="cpu", quiet=True)
    assert whole.evaluation is not None
    assert "reconstruction loss" in whole.evaluation.line()
    train_until_stopped(recipe, toy_shards, tmp_path / "parts")
    train(recipe, shards=toy_shards, out=tmp_path / "parts", resume=True, device="cpu", quiet=True)
    assert loss_curve(tmp_path / "whole") == loss_curve(tmp_path / "parts")
    drawn = [
        {path.name: path.read_bytes() for path in (tmp_path / run / FOLDER).iterdir()} for run in ("whole", "parts")
    ]
    assert sorted(drawn[0]) == [f"step-{step:08d}.png" for step in (0, 3, 6, 9)]
    assert drawn[0] == drawn[1]
    with pytest.raises(CheckpointError, match="fine-tune"):
        evaluate(tmp_path / "whole", shards=toy_shards, device="cpu")

    start = sizes(name="videomae", init=str(tmp_path / "whole/best.ckpt"))
    tuned = base.model_copy(update={"model": type(base.model).model_validate(start)})
    train(tuned, shards=toy_shards, out=tmp_path / "tuned", device="cpu")
    assert read_checkpoint(tmp_path / "tuned").model.name == "videomae"
    assert "learned from clips with mean" not in capsys.readouterr().err
    grey = tuned.data.model_copy(update={"normalize": Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)})
    train(tuned.model_copy(update={"data": grey}), shards=toy_shards, out=tmp_path / "grey", device="cpu")
    assert "--set 'data.normalize={mean: [0.485, 0.456, 0.406], std: [" in capsys.readouterr().err


class Oracle(VideoMAEPretrain):
    """Predicts what is there."""

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        return self.targets(video, mask)


def test_pictures_show_input_mask_and_painting(toy_shards: Path, tmp_path: Path) -> None:
    with Loader(toy_shards, split="val", batch_size=2, frames=4, size=32, backend="torch") as loader:
        clips = next(iter(loader))
        normalization = loader.manifest.normalization
    module = create_model("videomae-pretrain", num_classes=1, num_frames=4, image_size=32, **sizes(), mask_ratio=0.75)
    module.__class__ = Oracle
    pictures = Reconstructions(tmp_path, clips, step=0)
    path = pictures.draw(module, step=0, forward_context=nullcontext)
    assert path is not None
    sheet = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())
    rows = (
        sheet[19:, 244:].unfold(0, 158, 158)[:6, : 4 * 32 : 4, :, : 4 * 32 : 4].float()
    )  # first frames, enlarged 4 times
    rows = rows.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (normalization.mean, normalization.std))
    expected = ((clips.video[:, :, 0] * std + mean) * 255).permute(0, 2, 3, 1)
    seen, masked, painted = rows.unflatten(0, (2, 3)).unbind(1)
    torch.testing.assert_close(seen, expected, atol=1.0, rtol=0)
    torch.testing.assert_close(painted, expected, atol=1.5, rtol=0)
    grey = (masked == 128).all(dim=3)
    assert grey.float().mean() == 0.75
    assert torch.equal(masked[~grey], seen[~grey])


def test_pictures_become_rarer_as_a_run_goes_on(toy_shards: Path, tmp_path: Path) -> None:
    with Loader(toy_shards, split="val", batch_size=1, frames=4, size=32, backend="torch") as loader:
        clips = next(iter(loader))
    module = create_model("videomae-pretrain", num_classes=1, num_frames=4, image_size=32, **sizes())
    assert isinstance(module, VideoMAEPretrain)

    def drawn(pictures: Reconstructions, steps: Iterable[int], *, final: bool = False) -> list[int]:
        made = [pictures.draw(module, step=step, forward_context=nullcontext, final=final) for step in steps]
        return [step for step, path in zip(steps, made, strict=True) if path is not None]

    pictures = Reconstructions(tmp_path, clips, step=0)
    early = drawn(pictures, range(0, 2000, 20))
    assert early[:5] == [0, 20, 40, 60, 80]
    assert len(early) < 30
    assert drawn(pictures, [1980]) == []
    assert drawn(pictures, [1990, 1990], final=True) == [1990]
    assert drawn(Reconstructions(tmp_path, clips, step=1990), [1990, 2000]) == []
    assert drawn(Reconstructions(None, clips, step=0), [0]) == []


def test_masks_depend_on_seed_epoch_and_key_alone() -> None:
    module = create_model(
        "videomae-pretrain", num_classes=1, num_frames=4, image_size=32, width=24, depth=1, num_heads=2
    )
    assert isinstance(module, VideoMAEPretrain)
    together = draw_masks(module, ["a", "b"], seed=0, epoch=3)
    assert torch.equal(together[1:], draw_masks(module, ["b"], seed=0, epoch=3))
    assert not torch.equal(together[1:], draw_masks(module, ["b"], seed=0, epoch=4))
