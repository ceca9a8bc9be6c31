"""FSDP2 on two processes: the losses of one, checkpoints in folders that any number of processes and any command reads."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.train.processes import FIRST_OF_TWO, finish, start
from tests.train.runs import loss_curve
from tests.train.toy import MakeRecipe
from vidpipe.errors import CheckpointError, UsageError
from vidpipe.models.sharded import is_sharded
from vidpipe.models.weights import read_weights
from vidpipe.train.checkpoint import read_checkpoint
from vidpipe.train.device import make_fabric
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.runlog import read_metrics
from vidpipe.train.sharding import write_sharded

SECTIONS: dict[str, Any] = {
    "strategy": "fsdp",
    "model": {"dropout": 0.0},
    # 23 videos: the third step of an epoch has parts of different sizes, and a clip that is repeated.
    "data": {"drop_last": False, "where": "video not in ('0.mkv', '1.mkv', '2.mkv')"},
    "mixing": {"erase": 0.5},
    "optim": {"accumulate": 2, "layer_decay": 0.8},
    "schedule": {"name": "constant", "steps": 9},
    "checkpoint": {"keep_last": 2, "every_steps": 2},
    "ema": 0.9,
}
FIRST = {**SECTIONS, "schedule": {"name": "constant", "steps": 5}}


@pytest.fixture(scope="module")
def whole(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    out = tmp_path_factory.mktemp("whole")
    finish(start(toy_shards, out, SECTIONS))
    return out


@pytest.fixture(scope="module")
def first_part_of_two(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first steps of a run of two processes."""
    out = tmp_path_factory.mktemp("two")
    finish(start(toy_shards, out, FIRST, processes=2))
    assert is_sharded(out / "last.ckpt")
    return out


def same(run: Path, whole: Path) -> None:
    assert dict(loss_curve(run)) == pytest.approx(dict(loss_curve(whole)), rel=1e-4)
    ours, theirs = read_checkpoint(run / "last.ckpt"), read_checkpoint(whole / "last.ckpt")
    assert ours.step == theirs.step == 9
    for mine, other in ((ours.weights, theirs.weights), (ours.best_weights(), theirs.best_weights())):
        assert mine.keys() == other.keys()
        for name, weight in other.items():
            torch.testing.assert_close(mine[name], weight, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_equal_one_and_their_checkpoint_serves_every_command(
    whole: Path, toy_shards: Path, tmp_path: Path
) -> None:
    finish(start(toy_shards, tmp_path, SECTIONS, processes=2))
    same(tmp_path, whole)
    for column in ("grad_norm", "val_loss"):
        first, second = ([row[column] for row in read_metrics(run) if column in row] for run in (whole, tmp_path))
        assert first == pytest.approx(second, rel=1e-3)
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert (
        kept[-1].startswith("step-000009") and 2 <= len(kept) <= 3 and all(is_sharded(tmp_path / name) for name in kept)
    )
    assert evaluate(tmp_path, shards=toy_shards, device="cpu", backend="torch", quiet=True).top1 >= 0.5
    averaged = read_checkpoint(tmp_path / "last.ckpt").best_weights()
    published = read_weights(str(tmp_path / "last.ckpt"))
    assert published.keys() == averaged.keys()
    assert all(torch.equal(published[name], averaged[name]) for name in averaged)

    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    (tmp_path / "last.ckpt/.metadata").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(CheckpointError, match="its index asks for"):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "strategy"), [(1, "fsdp"), (2, "ddp")])
def test_a_run_goes_on_with_fewer_processes_or_another_strategy(
    first_part_of_two: Path, whole: Path, toy_shards: Path, tmp_path: Path, processes: int, strategy: str
) -> None:
    out = Path(shutil.copytree(first_part_of_two, tmp_path / "run", symlinks=True))
    finish(start(toy_shards, out, {**SECTIONS, "strategy": strategy}, processes=processes))
    same(out, whole)


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes(whole: Path, toy_shards: Path, tmp_path: Path) -> None:
    finish(start(toy_shards, tmp_path, FIRST))
    assert not is_sharded(tmp_path / "last.ckpt")
    finish(start(toy_shards, tmp_path, SECTIONS, processes=2))
    same(tmp_path, whole)


def test_one_process_has_nothing_to_deal_out(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = train(toy_recipe(strategy="fsdp"), shards=toy_shards, out=tmp_path, device="cpu", quiet=True)
    assert result.steps == 9 and (tmp_path / "last.ckpt").is_file()


def test_a_checkpoint_of_which_a_process_wrote_no_part_is_damaged(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        state = {"weights": {"a": torch.ones(2)}}
        write_sharded(state, tmp_path / "last.ckpt", group=distributed.group.WORLD, rank=0)
    finally:
        distributed.destroy_process_group()
    (part,) = (tmp_path / "last.ckpt").glob("*.distcp")
    part.unlink()
    with pytest.raises(CheckpointError, match=rf"last\.ckpt: damaged or not a checkpoint: .*{part.name}"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=rf"can't be read: .*{part.name}"):
        read_weights(str(tmp_path / "last.ckpt"))


def test_fp16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FIRST_OF_TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="strategy fsdp doesn't go with precision fp16"):
        make_fabric(device="cpu", precision="fp16", strategy="fsdp")
