"""Distillation: the loss is what it should be, the teacher stays out of everything but the loss, and the student follows it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.runs import loss_curve, train_until_stopped
from tests.train.toy import MakeRecipe, rename_classes
from vidpipe.errors import CheckpointError, UsageError
from vidpipe.loader import Batch
from vidpipe.models import create_model
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.distill import hidden_loss, qkv_loss, soft_loss
from vidpipe.train.dry_run import dry_run
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.runlog import read_metrics
from vidpipe.train.step import Learner, StepResult

STUDENT = {"name": "mini-vivit", "spatial_depth": 2, "mlp_ratio": 2.0}


@pytest.fixture(scope="module")
def teacher(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model knows the toy classes."""
    out = tmp_path_factory.mktemp("teacher")
    train(toy_recipe(schedule={"steps": 40}), shards=toy_shards, out=out, device="cpu", quiet=True)
    return out


def test_softened_logits_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    # At T = 2 the first clip has log-odds -1 and 1: KL = (2 sigma(1) - 1) * 1.
    expected = 4 * (2 / (1 + math.exp(-1)) - 1)
    torch.testing.assert_close(soft_loss(student, teacher, temperature=2.0), torch.tensor([expected, 0.0]))


def test_relations_by_hand() -> None:
    qkv = torch.zeros(1, 2, 3)  # two tokens of width 1: every relation is uniform
    torch.testing.assert_close(qkv_loss(qkv, qkv, clips=1), torch.tensor([math.log(2)]))
    wide = torch.randn(6, 4, 3 * 8)
    narrow = wide.unflatten(2, (3, 8))[..., :5].flatten(2)
    own, other = qkv_loss(wide, wide, clips=2), qkv_loss(narrow, wide, clips=2)
    assert own.shape == other.shape == (2,)
    assert (own < other).all()  # a cross entropy is least for the teacher's own relations
    q, k, v = wide.chunk(3, dim=2)
    swapped = torch.cat([k, q, v], dim=2)
    assert (qkv_loss(swapped, wide, clips=2) > own).all()

    # Orthogonal tokens against parallel ones: each relates to one other token wrongly, by 1.
    student, parallel = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 1.0], [2.0, 2.0]]])
    torch.testing.assert_close(hidden_loss(student, parallel, clips=1), torch.tensor([1.0]))
    torch.testing.assert_close(hidden_loss(student, 5 * student, clips=1), torch.tensor([0.0]))


def first_loss(run: Path) -> float:
    return dict(loss_curve(run))[1]


def test_the_loss_of_a_step_is_made_of_both_parts(
    toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path
) -> None:
    """The first step's loss with the teacher at weight 0, 0.3 and 1 lies on a line."""
    schedule = {"steps": 1, "warmup_steps": 0}
    model = {**STUDENT, "dropout": 0.0}
    for weight in (0.0, 0.3, 1.0):
        distill = {"teacher": str(teacher), "weight": weight, "temperature": 3.0}
        recipe = toy_recipe(model=model, schedule=schedule, distill=distill)
        train(recipe, shards=toy_shards, out=tmp_path / f"{weight}", device="cpu", quiet=True)
    train(toy_recipe(model=model, schedule=schedule), shards=toy_shards, out=tmp_path / "no", device="cpu", quiet=True)
    labels, both, logits = (first_loss(tmp_path / name) for name in ("0.0", "0.3", "1.0"))
    assert labels == first_loss(tmp_path / "no")
    assert abs(labels - logits) > 0.1
    assert both == pytest.approx(0.7 * labels + 0.3 * logits, rel=1e-5)


def test_accuracy_is_that_of_the_clips_with_a_label(
    toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.take_step

    def take_step(self: Learner, batches: Sequence[Batch], *, step: int, epoch: int) -> StepResult:
        for batch in batches:
            batch.label[::2] = -1
        return original(self, batches, step=step, epoch=epoch)

    monkeypatch.setattr(Learner, "take_step", take_step)
    recipe = toy_recipe(
        model={"init": str(teacher), "dropout": 0.0},
        optim={"lr": 1e-9},
        schedule={"steps": 3, "warmup_steps": 0},
        distill={"teacher": str(teacher), "weight": 1.0},
    )
    train(recipe, shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert read_metrics(tmp_path)[0]["top1"] > 0.8


def weights(run: Path) -> dict[str, Tensor]:
    return read_checkpoint(run).weights


def test_a_student_agrees_with_its_teacher_and_carries_nothing_of_it(
    toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path
) -> None:
    before = (teacher / "best.ckpt").read_bytes()
    distill = {"teacher": str(teacher), "weight": 1.0}  # the labels have no part
    recipe = toy_recipe(model=STUDENT, schedule={"steps": 40}, distill=distill)
    train(recipe, shards=toy_shards, out=tmp_path / "student", device="cpu", quiet=True)

    plain = create_model("mini-vivit", num_classes=4, **read_checkpoint(tmp_path / "student").model.config)
    assert weights(tmp_path / "student").keys() == plain.state_dict().keys()
    optimizer = read_checkpoint(tmp_path / "student").training["optimizer"]
    assert len(optimizer["state"]) == len(list(plain.parameters()))
    assert (teacher / "best.ckpt").read_bytes() == before

    said = {}
    for name, run in (("teacher", teacher), ("student", tmp_path / "student")):
        result = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
        said[name] = [score.predicted for score in result.scores]
    assert said["student"] == said["teacher"]


def test_relations_reach_the_student_and_only_the_student(
    toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path
) -> None:
    base = {"teacher": str(teacher), "weight": 0.0}
    for name, more in (("none", {}), ("qkv", {"qkv_weight": 1.0}), ("hidden", {"hidden_weight": 0.1})):
        recipe = toy_recipe(model={**STUDENT, "checkpointing": True}, distill={**base, **more})
        train(recipe, shards=toy_shards, out=tmp_path / name, device="cpu", quiet=True)
    # Two tubelet-frames of 1 + 4 tokens: at the start relations are nearly uniform, an entropy of about log 5.
    assert first_loss(tmp_path / "qkv") - first_loss(tmp_path / "none") == pytest.approx(math.log(5), rel=0.1)
    assert first_loss(tmp_path / "hidden") > first_loss(tmp_path / "none")
    changed = weights(tmp_path / "qkv")
    for name, tensor in weights(tmp_path / "none").items():
        if name.startswith("spatial.blocks.0.attn.qkv"):
            assert not torch.equal(tensor, changed[name])


def test_a_stopped_student_goes_on_bit_by_bit_and_only_with_its_teacher(
    toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path
) -> None:
    def recipe(path: Path) -> Any:
        mixing = {"mixup": 0.8, "cutmix": 1.0}
        return toy_recipe(model=STUDENT, mixing=mixing, distill={"teacher": str(path), "hidden_weight": 0.1})

    train(recipe(teacher), shards=toy_shards, out=tmp_path / "whole", device="cpu", quiet=True)
    train_until_stopped(recipe(teacher), toy_shards, tmp_path / "parts")
    other = torch.load(teacher / "best.ckpt", weights_only=True)
    other["weights"]["head.bias"] += 0.1
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"begun with another teacher; set distill\.teacher"):
        train(
            recipe(tmp_path / "other.ckpt"),
            shards=toy_shards,
            out=tmp_path / "parts",
            resume=True,
            device="cpu",
            quiet=True,
        )
    moved = shutil.copytree(teacher, tmp_path / "moved")
    train(recipe(moved), shards=toy_shards, out=tmp_path / "parts", resume=True, device="cpu", quiet=True)
    assert loss_curve(tmp_path / "whole") == loss_curve(tmp_path / "parts")


def test_teachers_that_do_not_fit(toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, *, shards: Path = toy_shards, **sections: Any) -> None:
        recipe = toy_recipe(**{"model": STUDENT, "distill": {"teacher": str(teacher)}, **sections})
        with pytest.raises(error, match=match):
            train(recipe, shards=shards, out=tmp_path / "run", device="cpu", quiet=True)
        assert not (tmp_path / "run").exists()

    refused(CheckpointError, "no such checkpoint", distill={"teacher": str(tmp_path / "absent")})
    refused(CheckpointError, "clips with frames 4, but this run's have 6", data={"frames": 6})
    refused(CheckpointError, "clips with size 16, but this run's have 24", data={"size": 24})
    relations = {"teacher": str(teacher), "qkv_weight": 1.0}
    refused(
        UsageError,
        r"same grid of tubelets, got MiniViViT \(4, 2, 2\) and ViViT \(2, 2, 2\)",
        model={**STUDENT, "tubelet_frames": 1},
        distill=relations,
    )
    shutil.copytree(toy_shards, tmp_path / "other")
    rename_classes(tmp_path / "other/train", ("blue", "green", "grey", "teal"))
    refused(CheckpointError, "class 3 is 'red' in the checkpoint, 'teal' in the shards", shards=tmp_path / "other")


def test_a_trial_step_does_without_an_absent_teacher(toy_shards: Path, toy_recipe: MakeRecipe, teacher: Path) -> None:
    absent = dry_run(toy_recipe(model=STUDENT, distill={"teacher": "runs/absent"}), shards=toy_shards, device="cpu")
    assert any("without the teacher runs/absent" in note for note in absent.notes)
    there = dry_run(toy_recipe(model=STUDENT, distill={"teacher": str(teacher)}), shards=toy_shards, device="cpu")
    assert not any("teacher" in note for note in there.notes)


def test_the_recipe_names_a_teacher_of_the_same_clips() -> None:
    recipe, of_teacher = load_train_recipe("mini-vivit-distill"), load_train_recipe("vivit")
    assert recipe.distill is not None
    assert (recipe.distill.teacher, recipe.distill.weight) == ("runs/vivit", 1.0)
    assert (recipe.data.frames, recipe.data.size) == (of_teacher.data.frames, of_teacher.data.size)
    assert recipe.model.name == "mini-vivit"
