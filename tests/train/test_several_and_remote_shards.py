"""`train` and `eval` on shards at a URL, here those of a local S3 server, and on several data sets at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import CommandResult, RunCommand

from vidpipe.train.checkpoint import read_checkpoint

SETTINGS = (
    "schedule.warmup_steps=0",
    "eval.every_steps=2",
    "log.pictures=false",
    "log.tensorboard=false",
    "data.shuffle=windowed",
    "data.shuffle_window=2",
)


def train(vidpipe: RunCommand, out: Path, *shards: object, sets: tuple[str, ...] = ()) -> CommandResult:
    options = [word for setting in ("schedule.steps=2", *SETTINGS, *sets) for word in ("--set", setting)]
    named = [word for folder in shards for word in ("--shards", folder)]
    quick = ("--batch-size", 8, "--frames", 2, "--device", "cpu", "--json")
    return vidpipe("train", "vivit-tiny", *named, "--out", out, *quick, *options)


def test_shards_at_a_url_train_and_evaluate_as_the_folder_does(
    bucket: str, motion_shards: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    epoch = "schedule.steps=4"  # which reads every shard
    local = train(vidpipe, tmp_path / "local", motion_shards, sets=(epoch,))
    cache = f"data.cache_dir={tmp_path / 'here'}"
    remote = train(vidpipe, tmp_path / "remote", bucket, sets=(epoch, cache, "data.cache_gb=1", "data.check=off"))
    assert (local.code, remote.code) == (0, 0), local.err + remote.err
    metrics = [(tmp_path / run / "metrics.csv").read_text().splitlines() for run in ("local", "remote")]
    losses = [[line.split(",")[:3] for line in lines] for lines in metrics]
    assert losses[0] == losses[1] and len(losses[0]) > 1
    assert len(list((tmp_path / "here/shards").glob("*.tar"))) == len(list(motion_shards.glob("*/*.tar")))
    evaluated = [vidpipe("eval", tmp_path / "remote", "--shards", s, "--json") for s in (bucket, motion_shards)]
    assert [result.code for result in evaluated] == [0, 0], evaluated[0].err
    found, expected = (json.loads(result.out) for result in evaluated)
    assert found == expected and found["videos"] == 16


def test_data_sets_are_mixed_by_weight_and_evaluated_together(
    bucket: str, motion_shards: Path, tmp_path: Path, vidpipe: RunCommand
) -> None:
    normalize = "data.normalize={mean: [0.5, 0.4, 0.3], std: [1, 1, 0.5]}"
    result = train(vidpipe, tmp_path / "run", f"{bucket}=0.25", f"{motion_shards}=0.75", sets=(normalize,))
    assert result.code == 0, result.err
    assert "64 clips of" in result.err
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.preprocessing.normalization.std == (
        1,
        1,
        0.5,
    )  # and so it is evaluated, on shards that say something else
    state = checkpoint.training["loader"]
    assert state["content"]["weights"] == [0.25, 0.75]
    both = vidpipe("eval", tmp_path / "run", "--shards", bucket, "--shards", motion_shards, "--json")
    assert both.code == 0, both.err
    assert json.loads(both.out)["videos"] == 32  # the same ones stand in both, and count in each


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (("{0}=0.5", "{0}/train"), "a weight for all of them .* or for none"),
        (("{0}", "{0}"), "each folder once"),
        (("{0}=0",), "weight of .*: got 0.0, expected more than 0"),
        (("nosuch://bucket/x",), "nosuch://bucket/x"),
    ],
)
def test_shards_that_make_no_sense_are_refused(
    motion_shards: Path, tmp_path: Path, vidpipe: RunCommand, shards: tuple[str, ...], message: str
) -> None:
    result = train(vidpipe, tmp_path / "run", *(text.format(motion_shards) for text in shards))
    assert result.code == 2
    assert re.search(message, result.err), result.err


def test_commands_that_need_the_shards_here_say_so(vidpipe: RunCommand) -> None:
    for command in (("verify",), ("inspect",), ("features", "--backbone", "resnet18", "--out", "unused")):
        result = vidpipe(command[0], "s3://bucket/x", *command[1:])
        assert result.code == 2 and "s3://bucket/x: is a URL, but this command works on a folder of this" in result.err
