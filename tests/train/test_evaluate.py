"""Evaluation: videos count once, by the mean of their clips; checkpoints that don't fit are refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RunCommand
from forked import start_ranks
from PIL import Image

from tests.train.processes import finish
from tests.train.toy import MakeRecipe, make_toy_recipe, rename_classes, with_batch_norm
from vidpipe.bench.train_step import plain_batch
from vidpipe.errors import CheckpointError
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.models import create_model
from vidpipe.shards.manifest import Normalization
from vidpipe.train.checkpoint import build_model, find_checkpoint, read_checkpoint
from vidpipe.train.evaluate import Tally, evaluate, score
from vidpipe.train.loop import train
from vidpipe.train.mistakes import MISTAKES, Mistakes
from vidpipe.train.pictures import draw_confusion
from vidpipe.train.runlog import read_metrics
from vidpipe.train.scores import ClassScore, Evaluation, ReconstructionScore, VideoScore, summarize


@pytest.fixture(scope="module")
def untrained(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, which is wrong about most videos."""
    out = tmp_path_factory.mktemp("untrained")
    recipe = toy_recipe(schedule={"steps": 1, "warmup_steps": 0}, optim={"lr": 0.03}, log={"pictures": True})
    train(recipe, shards=toy_shards, out=out, device="cpu", quiet=True)
    return out


@pytest.fixture(scope="module")
def run(toy_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(toy_recipe(schedule={"steps": 40}), shards=toy_shards, out=out, device="cpu", quiet=True)
    return out


def test_eval_prints_what_it_is_asked_for(run: Path, toy_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    arguments = ("eval", run, "--shards", toy_shards, "--views", "3x2", "--device", "cpu")
    plain = vidpipe(*arguments, "--per-class")
    line, *table = plain.out.splitlines()
    assert plain.code == 0 and "8 videos of 3 x 2 views" in line
    assert sorted(row.split()[0] for row in table) == ["blue", "green", "grey", "red"]
    pictures = ("--confusion", tmp_path / "c.png", "--misclassified", tmp_path / "m.png")
    result = json.loads(vidpipe(*arguments, "--json", *pictures).out)
    assert (result["videos"], result["clips"], result["views"]) == (8, 48, [3, 2])
    assert sum(map(sum, result["confusion"])) == 8
    assert min(Image.open(tmp_path / "c.png").size) >= 200
    for views in ("3", "0x1", "axb", "20x1"):
        refused = vidpipe("eval", run, "--shards", toy_shards, "--views", views, "--device", "cpu")
        assert refused.code == 2 and "views" in refused.err
    refused = vidpipe(*arguments, "--misclassified", tmp_path / "none/m.png")
    assert refused.code == 2 and f"there is no folder {tmp_path / 'none'}; make it" in refused.err


def test_the_surest_mistakes_are_drawn(untrained: Path, run: Path, toy_shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "mistakes.png"
    evaluation = evaluate(untrained, shards=toy_shards, device="cpu", backend="torch", misclassified=path)
    wrong = sum(score.label != score.predicted for score in evaluation.scores)
    picture = Image.open(path)
    assert wrong > 0 and picture.height % wrong == 0 and picture.height // wrong > 100
    assert len(picture.convert("L").getcolors(100_000)) > 50
    assert (untrained / MISTAKES).read_bytes() == path.read_bytes()
    perfect = evaluate(run, shards=toy_shards, device="cpu", backend="torch", misclassified=tmp_path / "none.png")
    assert perfect.top1 == 1.0 and not (tmp_path / "none.png").exists()


def test_processes_send_of_their_mistakes_what_is_drawn_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two, each with a part of 60 videos that are all taken for another class."""
    video, label, names = (
        torch.rand(60, 3, 2, 32, 32),
        torch.zeros(60, dtype=torch.int64),
        [f"{n:02d}" for n in range(60)],
    )
    said = torch.linspace(0.6, 0.9, 60)
    scores = [VideoScore(name, 0, 1, float(sure)) for name, sure in zip(names, said, strict=True)]
    classes = (ClassScore("a", 60, 0.0), ClassScore("b", 0, None))
    found = Evaluation("val", 60, 60, 1.0, 0.0, 1.0, classes, shuffled=False, views=None, scores=tuple(scores))
    probabilities, real = torch.stack([1 - said, said], dim=1), torch.ones(60, dtype=torch.bool)

    def mistakes(part: slice) -> Mistakes:
        kept = Mistakes(Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
        kept.add(plain_batch(video[part], label[part], names[part]), probabilities[part], real=real[part])
        return kept

    both, alone = (mistakes(slice(0, 50)), mistakes(slice(50, 60))), mistakes(slice(0, 60))
    sent: list[list[Any]] = [[], []]
    everyone = threading.Barrier(2)

    def gathered(own: Any, world_size: int) -> list[Any]:
        rank = int(threading.current_thread().name)
        sent[rank].append(own)
        everyone.wait()
        parts = [parts[len(sent[rank]) - 1] for parts in sent]
        everyone.wait()
        return parts

    monkeypatch.setattr("vidpipe.train.mistakes.gathered", gathered)
    threads = [threading.Thread(target=own.gather, args=(found, 2), name=f"{n}") for n, own in enumerate(both)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = len(pickle.dumps(mistakes(slice(0, 1))))
    assert len(pickle.dumps(sent)) < 20 * size
    for name, drawn in (("two.png", both[0]), ("one.png", alone)):
        drawn.draw(found, tmp_path / name)
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_a_videos_views_are_averaged_and_it_counts_once(untrained: Path, toy_shards: Path) -> None:
    result = evaluate(untrained, shards=toy_shards, device="cpu", backend="torch", views=(2, 3), batch_size=5)
    model = build_model(read_checkpoint(untrained))
    seen: dict[str, list[torch.Tensor]] = {}
    options = LoaderOptions(views=(2, 3))
    with Loader(toy_shards, split="val", frames=4, size=16, backend="torch", options=options) as loader:
        for batch in loader:
            with torch.no_grad():
                rows = model(batch.video).softmax(dim=1)
            for path, row in zip(batch.video_path, rows, strict=True):
                seen.setdefault(path, []).append(row)
    assert (result.videos, result.clips) == (8, 48) and {len(rows) for rows in seen.values()} == {6}
    for found in result.scores:
        best = torch.stack(seen[found.video]).mean(dim=0).max(dim=0)
        assert (found.predicted, found.probability) == (int(best.indices), pytest.approx(float(best.values), abs=1e-6))


def test_accuracies_are_by_video_and_by_class() -> None:
    """Of four videos, the right class of one is the fifth, and that of another one the sixth."""
    falling = torch.tensor([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05])
    result = summarize(
        split="val",
        class_names=list("abcdefg"),
        videos=["w", "x", "y", "z"],
        labels=[4, 0, 5, 0],
        probabilities=torch.stack([falling, falling, falling, falling.flip(0)]),
        clips=5,
        mean_loss=1.0,
    )
    assert (result.videos, result.clips, result.top1, result.top5) == (4, 5, 0.25, 0.5)
    assert [(score.predicted, score.probability) for score in result.scores] == [
        *((0, pytest.approx(0.3)),) * 3,
        (6, pytest.approx(0.3)),
    ]
    taken_for = [[1, 0, 0, 0, 0, 0, 1], [0] * 7, [0] * 7, [0] * 7, [1, *[0] * 6], [1, *[0] * 6], [0] * 7]
    assert result.confusion().tolist() == result.to_json()["confusion"] == taken_for
    found = [(score.videos, score.top1) for score in result.classes]
    assert found == [(2, 0.5), *[(0, None)] * 3, (1, 0.0), (1, 0.0), (0, None)]


def test_of_thousands_of_classes_no_matrix_of_all_their_pairs_is_made(tmp_path: Path) -> None:
    count = 6_000
    result = summarize(
        split="val",
        class_names=[str(number) for number in range(count)],
        videos=["x", "y", "z"],
        labels=[0, 5_999, 3_000],
        probabilities=torch.nn.functional.one_hot(torch.tensor([0, 5_999, 5_998]), count).float(),
        clips=3,
        mean_loss=1.0,
    )
    assert result.top1 == pytest.approx(2 / 3) and result.classes[3_000].top1 == 0.0
    assert len(json.dumps(result.to_json())) < 1e6
    assert result.confusion(classes_per_cell=2_000).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert min(Image.open(draw_confusion(result, tmp_path / "c.png")).size) >= 200


def test_class_names_are_shown_as_they_are_whatever_is_in_them(tmp_path: Path) -> None:
    result = summarize(
        split="val",
        class_names=["win $5 or $\\frac{$", "two\nlines"],
        videos=["x", "y"],
        labels=[0, 1],
        probabilities=torch.tensor([[0.6, 0.4], [0.8, 0.2]]),
        clips=2,
        mean_loss=1.0,
    )
    assert min(Image.open(draw_confusion(result, tmp_path / "c.png")).size) >= 200
    assert [row.split("  ")[0] for row in result.table()] == ["two\\nlines", "win $5 or $\\frac{$"]


def test_shuffled_frames_are_the_same_shuffle_every_time(run: Path, toy_shards: Path) -> None:
    first, again = (
        evaluate(run, shards=toy_shards, device="cpu", backend="torch", shuffle_frames=1, batch_size=size)
        for size in (3, 16)
    )
    plain = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
    assert first.loss == pytest.approx(again.loss, abs=1e-6)
    assert first.loss != plain.loss
    assert "shuffled" in first.line()


def test_one_view_of_each_stored_clip_is_what_is_taken_by_default(run: Path, toy_shards: Path) -> None:
    central = evaluate(run, shards=toy_shards, device="cpu", backend="torch", views=(2, 1))
    assert central.scores == evaluate(run, shards=toy_shards, device="cpu", backend="torch").scores


def test_a_checkpoint_is_plain_data_and_makes_its_model_anew(run: Path, toy_shards: Path) -> None:
    checkpoint = read_checkpoint(run)
    assert checkpoint.path == run / "best.ckpt"
    assert checkpoint.preprocessing.frames == 4
    assert checkpoint.preprocessing.clip.clips == 2
    model = build_model(checkpoint)
    logits = model(torch.zeros(1, 3, 4, 16, 16))
    assert logits.shape == (1, 4)


def test_checkpoints_that_do_not_fit_are_one_line(run: Path, toy_shards: Path, tmp_path: Path) -> None:
    state = torch.load(run / "last.ckpt", weights_only=True)
    (tmp_path / "cut.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:-5000])
    refused(tmp_path / "cut.ckpt", "damaged or not a checkpoint: no zip archive")
    torch.save({"format": Path("code")}, tmp_path / "code.ckpt")
    refused(tmp_path / "code.ckpt", "damaged or not a checkpoint")
    renamed = dict(state, weights={"x" + name: weight for name, weight in state["weights"].items()})
    torch.save(renamed, tmp_path / "renamed.ckpt")
    with pytest.raises(
        CheckpointError, match=r"doesn't fit the model: it lacks .* and \d+ more and has unknown keys x"
    ):
        evaluate(tmp_path / "renamed.ckpt", shards=toy_shards, device="cpu")
    torch.save(state["weights"], tmp_path / "weights.ckpt")
    refused(tmp_path / "weights.ckpt", "not a checkpoint of `vidpipe train`")
    torch.save(dict(state, format_version=99), tmp_path / "newer.ckpt")
    refused(tmp_path / "newer.ckpt", "format version 99")
    refused(tmp_path / "nothing.ckpt", "no such checkpoint")
    refused(tmp_path, "no checkpoint in this folder")


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_run_folder_gives_its_best_else_its_last(run: Path) -> None:
    assert find_checkpoint(run).name == "best.ckpt"
    assert find_checkpoint(run, which="last").name == "last.ckpt"


def test_other_classes_are_refused(run: Path, toy_shards: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    shutil.copytree(toy_shards, tmp_path / "toy")
    rename_classes(tmp_path / "toy/val", ("blue", "green", "grey"))
    shown = vidpipe("eval", run, "--shards", tmp_path / "toy", "--device", "cpu")
    assert shown.code == 1 and "4 classes in the checkpoint, 3 in the shards" in shown.err


def test_what_is_repeated_for_the_processes_sake_is_left_out_of_reconstruction_too(toy_shards: Path) -> None:
    """8 clips among 3 processes: the shares add up to what one process finds."""
    sizes = {"patch_size": 8, "width": 24, "depth": 1, "num_heads": 2, "mask_ratio": 0.5}
    torch.manual_seed(0)
    module = create_model("videomae-pretrain", num_classes=1, num_frames=4, image_size=16, **sizes)

    def found(rank: int, world_size: int) -> Evaluation | ReconstructionScore:
        geometry = {"frames": 4, "size": 16, "batch_size": 4, "backend": "torch"}
        with Loader(toy_shards, split="val", rank=rank, world_size=world_size, **geometry) as loader:
            return score(module, loader, forward_context=nullcontext)

    whole, shares = found(0, 1), [found(rank, 3) for rank in range(3)]
    assert [share.clips for share in shares] == [3, 3, 2] and whole.clips == 8
    assert sum(share.loss * share.clips for share in shares) / 8 == pytest.approx(whole.loss, rel=1e-5)


def test_what_is_repeated_for_the_processes_sake_is_left_out(
    run: Path, toy_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 videos of 2 clips among 3 processes, two of which are given one more: together they find what one process finds."""
    alone = evaluate(run, shards=toy_shards, device="cpu", backend="torch")
    module = build_model(read_checkpoint(run))
    geometry: dict[str, Any] = {"frames": 4, "size": 16, "batch_size": 4, "backend": "torch"}
    tallies, repeated = [Tally() for _ in range(3)], 0
    for rank, tally in enumerate(tallies):
        options = LoaderOptions(epoch_unit="clip")
        with Loader(toy_shards, split="val", rank=rank, world_size=3, options=options, **geometry) as loader:
            repeated += sum(int(batch.is_padding.sum()) for batch in loader)
            manifest = loader.manifest
            tally.add(module, loader, forward_context=nullcontext)
    assert repeated == 2
    own: list[Any] = []
    monkeypatch.setattr("vidpipe.train.evaluate.gathered", lambda part, world_size: own.append(part) or [part])
    for tally in tallies:
        tally.evaluation(manifest, world_size=3)
    monkeypatch.setattr("vidpipe.train.evaluate.gathered", lambda part, world_size: own)
    together = tallies[0].evaluation(manifest, world_size=3)
    assert (together.videos, together.clips) == (alone.videos, alone.clips) == (8, 16)
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert [found.probability for found in together.scores] == pytest.approx([s.probability for s in alone.scores])


def train_with_batch_norm(shards: Path, out: Path) -> int:
    """A run whose one evaluation is of its last step."""
    recipe = with_batch_norm(make_toy_recipe(ema=0.9, eval={"every_epochs": 3}))
    return train(recipe, shards=shards, out=out, device="cpu").exit_code


@pytest.mark.slow
def test_the_accuracy_of_a_run_of_several_processes_is_that_of_its_checkpoint(toy_shards: Path, tmp_path: Path) -> None:
    """With running statistics of which each process has its own."""
    finish(start_ranks(2, train_with_batch_norm, toy_shards, tmp_path))
    (logged,) = [row["val_loss"] for row in read_metrics(tmp_path) if "val_loss" in row]
    again = evaluate(tmp_path, shards=toy_shards, device="cpu", backend="torch", quiet=True)
    assert again.loss == pytest.approx(logged, rel=1e-5)
