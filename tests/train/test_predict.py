"""Prediction on raw files: the same numbers as evaluation on shards, bad files don't stop good ones, none is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RunCommand
from forked import Forked, command

from tests.train.toy import MakeRecipe
from vidpipe.errors import UsageError
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.loader.augmentation.transform import center_clip
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import load_manifest
from vidpipe.train.data import preprocessing_of
from vidpipe.train.evaluate import evaluate
from vidpipe.train.loop import train
from vidpipe.train.predict import Prediction, PredictOptions, predict
from vidpipe.train.recipe import DataSection
from vidpipe.train.stored_clips import stored_clips
from vidpipe.train.video_list import name_videos, read_list
from vidpipe.video.child import POLL_SECONDS, Child
from vidpipe.video.decode import extract_clips

ON_CPU = PredictOptions(top=1, device="cpu", workers=2)


@pytest.fixture(scope="module")
def run(real_shards: Path, toy_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on the real clips."""
    recipe = toy_recipe(
        data={"frames": 4, "stride": 4, "size": 32, "batch_size": 4}, schedule={"steps": 2, "warmup_steps": 0}
    )
    out = tmp_path_factory.mktemp("run")
    train(recipe, shards=real_shards, out=out, device="cpu", quiet=True)
    return out


@pytest.fixture(scope="module")
def whole_videos(
    videos_dir: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> Callable[..., Path]:
    """Stores the real clips as whole videos in shards (codec mp4), 64 pixels high, with options of prep."""

    @cache
    def prepared(*options: str) -> Path:
        out = tmp_path_factory.mktemp("whole") / "shards"
        source = ("--source", videos_dir, "--set", "annotations=labels.csv", "--split", "train", "--max-rejects", "20%")
        assert session_command("prep", "csv", *source, "--codec", "mp4", "--height", 64, *options, "--out", out) == 0
        return out

    return prepared


def test_a_raw_file_gets_the_probability_that_its_shard_gets(run: Path, real_shards: Path, videos_dir: Path) -> None:
    evaluation = evaluate(run, shards=real_shards, device="cpu", backend="torch")
    files = [videos_dir / score.video for score in evaluation.scores]
    result = predict(run, files, ON_CPU)
    assert result.exit_code == 0
    for score, prediction in zip(evaluation.scores, result.predictions, strict=True):
        assert prediction.error is None
        assert prediction.top[0].probability == pytest.approx(score.probability, abs=1e-6)
    assert sorted(score.video for score in evaluation.scores) == sorted(
        set(read_samples(real_shards / "val", ["video"])["video"].to_pylist())
    )


@pytest.mark.parametrize(
    ("options", "frames", "stride"),
    [
        (("--stride", "2"), 8, None),
        (("--stride", "2"), 8, 3),
        (("--stride", "2"), 16, 20),
        (("--set", "stride=null", "--set", "fps=8"), 8, None),
        (("--set", "stride=null", "--set", "fps=8"), 6, 3),
        pytest.param(("--set", "sampling=uniform", "--set", "stride=null"), 8, None, marks=pytest.mark.slow),
    ],
)
def test_of_a_video_that_shards_hold_whole_the_same_frames_are_taken(
    whole_videos: Callable[..., Path], videos_dir: Path, options: tuple[str, ...], frames: int, stride: int | None
) -> None:
    shards = whole_videos(*options)
    section = DataSection(frames=frames, stride=stride, size=64)
    preprocessing = preprocessing_of(load_manifest(shards / "train"), section)
    stored = stored_clips(preprocessing)
    evaluated = {"frames": frames, "stride": stride, "size": 64, "backend": "torch"}
    with Loader(shards, options=LoaderOptions(epoch_unit="clip"), **evaluated) as loader:
        for batch in loader:
            for path, expected in zip(batch.video_path, batch.video, strict=True):
                plan = partial(stored.plan, key=path)
                (clip,) = extract_clips(videos_dir / path, stored.spec, key=path, plan=plan).clips
                got = center_clip(clip.video, stored.spec, size=64, normalization=preprocessing.normalization)
                # What the stored video's H.264 loses; frames beside these differ by more, unless nothing moves.
                assert (got - expected).abs().mean() < 0.1
                assert path.startswith("ntu") or (got.roll(1, 1) - expected).abs().mean() > 0.11


def test_predictions_do_not_depend_on_batches_and_workers(run: Path, videos_dir: Path) -> None:
    files = sorted(videos_dir.glob("*.*"))
    one, many = (
        predict(run, files, PredictOptions(device="cpu", batch_size=size, workers=workers))
        for size, workers in ((1, 1), (4, 3))
    )
    assert [prediction.video for prediction in many.predictions] == [str(file) for file in files]
    assert 0 < many.num_failed < len(files)
    for first, second in zip(one.predictions, many.predictions, strict=True):
        assert first.error == second.error
        assert [c.name for c in first.top] == [c.name for c in second.top]
        assert [c.probability for c in first.top] == pytest.approx([c.probability for c in second.top], abs=1e-6)


def test_a_bad_file_is_one_line_and_the_others_go_through(
    run: Path, videos_dir: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    odd = tmp_path / os.fsdecode(b"x\xff.avi")
    odd.symlink_to(videos_dir / "xvid.avi")
    files = [tmp_path / "text.mp4", odd, tmp_path / "mis\nsing.mp4"]
    shown = vidpipe("predict", run, *files, "--top", 3, "--device", "cpu", "--workers", 1)
    assert shown.code == 1
    name, *guesses = shown.out.splitlines()
    assert name.endswith("x\\xff.avi") and len(guesses) == 3
    bad, missing = shown.err.splitlines()
    assert bad.startswith(f"error: {files[0]}: not-a-video")
    assert missing.startswith(f"error: {tmp_path}/mis\\nsing.mp4: missing")
    result = json.loads(vidpipe("predict", run, *files, "--device", "cpu", "--workers", 1, "--json").out)
    assert [entry["error"] is None for entry in result] == [False, True, False]
    chances = [entry["probability"] for entry in result[1]["top"]]
    assert chances == sorted(chances, reverse=True)


def test_probabilities_that_are_not_finite_are_no_prediction(
    run: Path, videos_dir: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    state = torch.load(run / "last.ckpt", weights_only=True)
    state["weights"]["head.bias"][0] = float("nan")
    torch.save(state, tmp_path / "best.ckpt")
    shown = vidpipe("predict", tmp_path, videos_dir / "xvid.avi", "--device", "cpu", "--json")
    (prediction,) = json.loads(shown.out, parse_constant=pytest.fail)
    assert shown.code == 1 and prediction["top"] == []
    assert prediction["error"].startswith("the model gives no finite probabilities; try --precision fp32")


def test_a_decoder_that_hangs_or_dies_costs_one_video(
    run: Path, videos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The children import a decoder that hangs on one file and dies of another. The time limit counts from when it hangs, so that
    other files may take as long as they need on a busy machine.
    """
    hanging, wait = tmp_path / "hanging", Child._wait

    def wait_at_length(self: Child[Any, Any], process: Any, seconds: float) -> bool:
        while not wait(self, process, POLL_SECONDS):
            if hanging.exists():
                hanging.unlink()
                return wait(self, process, seconds)
        return True

    monkeypatch.setattr(Child, "_wait", wait_at_length)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "import vidpipe.video.decode as decode\n"
        "original = decode.extract_clips\n"
        "def extract_clips(path, *args, **kwargs):\n"
        "    if path.name == 'hangs.avi':\n"
        "        (path.parent / 'hanging').touch()\n"
        "        time.sleep(1000)\n"
        "    if path.name == 'dies.avi':\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return original(path, *args, **kwargs)\n"
        "decode.extract_clips = extract_clips\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    for name in ("hangs.avi", "dies.avi", "good.avi"):
        (tmp_path / name).symlink_to(videos_dir / "xvid.avi")
    names = ["good.avi", "hangs.avi", "dies.avi", "good.avi"]
    options = PredictOptions(device="cpu", workers=1, timeout_seconds=0.4)
    result = predict(run, [tmp_path / name for name in names], options)
    first, hung, died, last = result.predictions
    assert first.error is None and first.top == last.top
    assert hung.error is not None and hung.error.startswith("timeout: no end of decoding after 0.4 s")
    assert died.error is not None and died.error.startswith("crash: ") and "SIGKILL" in died.error


def test_predictions_come_while_the_list_is_still_open(run: Path, videos_dir: Path) -> None:
    more = threading.Event()

    def videos() -> Iterator[Path]:
        yield videos_dir / "xvid.avi"
        assert more.wait(240), "the first prediction waits for the second video"
        yield videos_dir / "xvid.avi"

    seen: list[Prediction] = []

    def take(prediction: Prediction) -> None:
        seen.append(prediction)
        more.set()

    result = predict(run, videos(), ON_CPU, on_prediction=take)
    assert list(result.predictions) == seen and len(seen) == 2


def test_ending_early_leaves_no_process(run: Path, videos_dir: Path) -> None:
    def stop(prediction: Prediction) -> None:
        raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        predict(run, [videos_dir / "xvid.avi"] * 9, ON_CPU, on_prediction=stop)
    deadline = time.monotonic() + 60
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children() - before


def predict_of_a_list(listed: Path, *arguments: object) -> None:
    """`vidpipe predict ARGUMENTS...` with a named pipe as its input."""
    with listed.open() as sys.stdin:
        command("predict", *arguments)


def test_ctrl_c_while_the_list_is_still_open_ends_at_once(run: Path, videos_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list")
    process = Forked(predict_of_a_list, tmp_path / "list", run, "-", "--device", "cpu", "--workers", 1)
    with (tmp_path / "list").open("wb", buffering=0) as listed:
        listed.write(os.fsencode(videos_dir / "xvid.avi") + b"\n")
        process.wait_until(lambda: "xvid.avi\n" in process.output and process.output.endswith("\n"))
        process.send(signal.SIGINT)
        assert "\nerror: interrupted" in process.finish(130)


def children() -> set[str]:
    """This process's children, whichever thread started them; threads and processes may end while this looks."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(folder.name)
    return found


def test_files_folders_and_lists_are_named_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/2.MP4", "a/1.avi", "a/notes.txt", "a/.hidden.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list").write_bytes(b"one.mp4\r\ntwo words.mp4\n\n" + os.fsencode(tmp_path / "a") + b"\nlast\xff.mp4")
    (tmp_path / "stdin").write_bytes(b"new\nline.mp4\0x.mp4\0")
    monkeypatch.setattr(sys, "stdin", (tmp_path / "stdin").open())
    found = [str(path) for path in name_videos([Path("x.mkv"), tmp_path / "a", Path("-")], [tmp_path / "list"])]
    inside = [str(tmp_path / "a/1.avi"), str(tmp_path / "a/b/2.MP4")]
    listed = ["one.mp4", "two words.mp4", *inside, os.fsdecode(b"last\xff.mp4")]
    assert found == ["x.mkv", *inside, "new\nline.mp4", "x.mp4", *listed]


def test_a_list_is_read_as_it_comes() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as stream, os.fdopen(theirs, "wb", buffering=0) as writer:
        paths = read_list(stream)
        writer.write(b"a.mp4\nb.m")
        assert next(paths) == Path("a.mp4")
        writer.write(b"p4\n")
        assert next(paths) == Path("b.mp4")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (lambda folder: ([], []), "no videos given"),
        (lambda folder: ([folder], []), "no video files in this folder"),
        (lambda folder: ([], [folder / "list"]), "no such file"),
        (lambda folder: ([Path("-")], [Path("-")]), "only once"),
    ],
)
def test_what_names_nothing_is_refused_at_once(
    named: Callable[[Path], tuple[list[Path], list[Path]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        name_videos(*named(tmp_path))


def test_an_empty_list_is_refused(run: Path, tmp_path: Path, vidpipe: RunCommand) -> None:
    (tmp_path / "list").touch()
    result = vidpipe("predict", run, "--list", tmp_path / "list", "--device", "cpu")
    assert result.code == 2 and "no videos given" in result.err
