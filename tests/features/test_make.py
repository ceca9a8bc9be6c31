"""`vidpipe features`: what it writes is what the backbone makes of the frames, resumes, verifies, and refuses politely."""

from __future__ import annotations

import gc
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import RunCommand
from features.backbones import NAME, save_weights
from file_tree import contents
from forked import Forked, command

from vidpipe.errors import ShardError
from vidpipe.features.make import FeatureJob, make_features
from vidpipe.features.shard import ShardMaker, in_batches
from vidpipe.loader import Loader, LoaderOptions
from vidpipe.shards.manifest import load_manifest

SIZE = 48


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_weights(path)
    return path


def job(shards: Path, out: Path, weights: Path, **options: object) -> FeatureJob:
    return FeatureJob(shards=shards, out=out, backbone=NAME, weights=str(weights), size=SIZE, **options)


@pytest.fixture(scope="module")
def made(real_shards: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "out"
    make_features(job(real_shards, out, weights))
    return out


def stored(split: Path) -> Iterator[tuple[str, np.ndarray, int, dict]]:
    """Key, features, label and description of every sample, read with nothing of vidpipe's."""
    for shard in sorted(split.glob("*.tar")):
        with tarfile.open(shard) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        for name, data in files.items():
            key, _, extension = name.partition(".")
            if extension == "npy":
                array = np.load(io.BytesIO(data), allow_pickle=False)
                yield key, array, int(files[f"{key}.cls"]), json.loads(files[f"{key}.json"])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_features_are_the_backbones_of_centre_crops(
    real_shards: Path, weights: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    result = make_features(job(real_shards, tmp_path / "out", weights, dtype=dtype, batch_size=7))
    assert {name: split.samples for name, split in result.splits.items()} == {"train": 7, "val": 3}
    assert result.note is not None
    assert "trained with mean (0.5, 0.5, 0.5)" in result.note
    backbone = save_weights(tmp_path / "again.safetensors")
    samples = {key: rest for key, *rest in stored(tmp_path / "out/train")}
    options = LoaderOptions(epoch_unit="clip")
    with Loader(real_shards, split="train", batch_size=1, size=SIZE, backend="torch", options=options) as loader:
        for batch in loader:
            array, label, description = samples.pop(batch.key[0])
            with torch.no_grad():
                expected = backbone(batch.video[0].transpose(0, 1))
            assert array.dtype == dtype
            assert array.shape == (16, result.width)
            torch.testing.assert_close(torch.from_numpy(array).float(), expected, atol=tolerance, rtol=tolerance)
            assert (label, description["video"]) == (int(batch.label[0]), batch.video_path[0])
            assert description["features"] == {"backbone": NAME, "weights": result.weights}
    assert not samples


def test_a_manifest_is_its_sources_with_the_features_described(made: Path, real_shards: Path) -> None:
    ours, theirs = load_manifest(made / "train"), load_manifest(real_shards / "train")
    assert ours.features is not None
    assert (ours.features.backbone, ours.features.size, ours.features.crops) == (NAME, SIZE, 1)
    same = {"dataset", "split", "classes", "clip", "codec", "normalization", "counts", "labels", "sources", "recipe"}
    assert ours.model_dump(include=same) == theirs.model_dump(include=same)
    assert (made / "train/rejects.jsonl").read_bytes() == (real_shards / "train/rejects.jsonl").read_bytes()


def test_clips_do_not_end_where_batches_end() -> None:
    clips = [torch.arange(n * 2.0).view(n, 2) + 100 * number for number, n in enumerate((3, 1, 9, 2, 4))]
    sizes: list[int] = []

    def run(frames: torch.Tensor) -> torch.Tensor:
        sizes.append(len(frames))
        return -frames

    results = list(in_batches(clips, 4, run))
    assert sizes == [4, 4, 4, 4, 3]
    for clip, result in zip(clips, results, strict=True):
        assert np.array_equal(result, -clip.numpy())


def test_crops_are_samples_of_their_own(real_shards: Path, weights: Path, made: Path, tmp_path: Path) -> None:
    make_features(job(real_shards, tmp_path / "out", weights, crops=3))
    one = {key: array for key, array, *_ in stored(made / "train")}
    three = {key: (array, description["crop"]) for key, array, _, description in stored(tmp_path / "out/train")}
    assert len(three) == 3 * len(one)
    different = 0
    for key, array in one.items():
        video = key.partition("-")[0]
        left, centre, right = (three[f"{video}-{crop:03d}"] for crop in range(3))
        assert [left[1], centre[1], right[1]] == [0, 1, 2]
        np.testing.assert_allclose(centre[0], array, atol=2e-3)
        different += not np.allclose(left[0], right[0], atol=1e-2)
    assert different >= 5  # a square video has but one


def test_verify_and_inspect_know_features(made: Path, vidpipe: RunCommand, tmp_path: Path) -> None:
    assert vidpipe("verify", made, "--deep").code == 0
    assert "test_resnet" in vidpipe("inspect", made).out
    grid = vidpipe("inspect", made, "--grid", tmp_path / "grid.png")
    assert (grid.code, grid.err.count("\n")) == (1, 1)
    assert "holds features of test_resnet, not frames" in grid.err

    damaged = tmp_path / "damaged"
    for name, data in contents(made).items():
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        (damaged / name).write_bytes(data)
    shard = damaged / "train/00000.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\x93NUMPY") + 400] ^= 1
    shard.write_bytes(data)
    result = vidpipe("verify", damaged)
    assert result.code == 1
    assert "damaged (payload)" in result.out
    with pytest.raises(ShardError, match="holds features of test_resnet, not frames"):
        Loader(made, split="val")


def test_an_interrupted_run_goes_on_with_what_is_finished(
    real_shards: Path, weights: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, made_shards = ShardMaker.make, []

    def make(self: ShardMaker, entry: object) -> object:
        if len(made_shards) == 2:
            raise KeyboardInterrupt
        made_shards.append(entry)
        return original(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(ShardMaker, "make", make)
        with pytest.raises(KeyboardInterrupt):
            make_features(job(real_shards, tmp_path / "out", weights))
    assert not (tmp_path / "out/train/manifest.json").exists()
    (tmp_path / "out/train/00002.tar.tmp").write_bytes(b"half")
    result = make_features(job(real_shards, tmp_path / "out", weights))
    assert result.splits["train"].reused == 2
    assert contents(tmp_path / "out") == contents(made)
    again = make_features(job(real_shards, tmp_path / "out", weights))
    assert again.splits["train"].reused == again.splits["train"].shards


def test_a_shard_that_other_options_have_replaced_is_made_again(
    real_shards: Path, weights: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it is as large as the one that the first options' part file tells of."""
    original = ShardMaker.make
    for size, shards in ((SIZE, 2), (SIZE * 2, 1)):
        made_shards = []

        def make(self: ShardMaker, entry: object, *, last: int = shards, done: list[object] = made_shards) -> object:
            done.append(part := original(self, entry))
            if len(done) == last:
                raise KeyboardInterrupt
            return part

        with monkeypatch.context() as patch:
            patch.setattr(ShardMaker, "make", make)
            with pytest.raises(KeyboardInterrupt):
                make_features(replace(job(real_shards, tmp_path / "out", weights), size=size))
    make_features(job(real_shards, tmp_path / "out", weights))
    assert contents(tmp_path / "out") == contents(made)


def test_a_run_holds_no_rows_of_finished_shards_and_keeps_out_one_with_other_weights(
    real_shards: Path, weights: Path, made: Path, tmp_path: Path
) -> None:
    save_weights(tmp_path / "other.safetensors", seed=1)
    held: list[int] = []

    def meanwhile(split: str, done: int, shards: int) -> None:
        gc.collect()
        held.append(sum(type(thing) is dict and "payload_crc32" in thing for thing in gc.get_objects()))
        if len(held) == 1:
            with pytest.raises(ShardError, match="another run is at work there, with other videos, weights or options"):
                make_features(job(real_shards, tmp_path / "out", tmp_path / "other.safetensors"))

    make_features(job(real_shards, tmp_path / "out", weights), on_shard=meanwhile)
    assert len(held) > 2 and len(set(held)) == 1
    assert contents(tmp_path / "out") == contents(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: shard.unlink(), r"train/00000\.tar: can't be read: No such file"),
        (
            lambda shard: shard.write_bytes(shard.read_bytes().replace(b'"clip"', b"'clip'", 1)),
            r"00000\.tar: sample \d+-000: its description differs from what was written",
        ),
    ],
)
def test_a_source_that_cant_be_read_is_not_taken_for_an_output_that_cant_be_written(
    real_shards: Path, weights: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    source = Path(shutil.copytree(real_shards, tmp_path / "source"))
    change(source / "train/00000.tar")
    with pytest.raises(ShardError, match=message):
        make_features(job(source, tmp_path / "out", weights))


def stalled_in_a_shard(finished: int, out: Path, stalled: Path, *arguments: object) -> None:
    """The command, which waits for ever in the midst of the shard that comes after so many; then `stalled` is there."""
    write = ShardMaker._write

    def write_and_stall(*given: Any, **named: Any) -> Any:
        row = write(*given, **named)
        if len(list(out.glob("*/*.tar"))) >= finished:
            stalled.touch()
            threading.Event().wait()
        return row

    ShardMaker._write = write_and_stall  # type: ignore[method-assign]
    command(*arguments)


@pytest.mark.slow
def test_a_killed_run_leaves_the_same_bytes(real_shards: Path, weights: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--backbone", NAME, "--weights", weights, "--out", out, "--size", SIZE, "--device", "cpu")
    arguments = ("features", real_shards, *options)
    for count in (1, 2, 3):
        stalled = tmp_path / f"stalled after {count}"
        process = Forked(stalled_in_a_shard, count, out, stalled, *arguments)
        process.wait_until(stalled.exists)
        process.kill()
        assert len(list(out.glob("*/*.tar"))) == count and list(out.glob("*/*.tar.tmp"))
        assert not (out / "val/manifest.json").exists()
    Forked(command, *arguments).finish()
    assert contents(out) == contents(made)


def test_refusals(real_shards: Path, weights: Path, made: Path, vidpipe: RunCommand, tmp_path: Path) -> None:
    def refused(
        *arguments: object, shards: Path = real_shards, backbone: str = NAME, out: Path = tmp_path / "out"
    ) -> str:
        result = vidpipe("features", shards, "--backbone", backbone, "--out", out, "--device", "cpu", *arguments)
        assert result.code != 0
        assert result.err.count("\n") == 1
        return result.err

    assert "timm has no such model; did you mean resnet50" in refused(backbone="resnett50")
    assert "no such file or folder" in refused("--weights", tmp_path / "absent.pth")
    other = refused("--weights", weights, backbone="resnet18")
    assert "not those of this backbone: it lacks" in other
    assert not (tmp_path / "out").exists()
    assert "expected 16 to 4096" in refused("--weights", weights, "--size", 8)
    assert "holds features already" in refused("--weights", weights, shards=made)
    assert "holds the clips" in refused("--weights", weights, out=real_shards)
    assert "with other options; choose another --out" in refused("--weights", weights, "--size", 64, out=made)
    save_weights(tmp_path / "other.safetensors", seed=1)
    assert "choose another --out" in refused("--weights", tmp_path / "other.safetensors", out=made)
    assert "no split 'test'" in refused("--weights", weights, "--split", "test")


def test_without_a_network_timms_weights_are_asked_for_by_path(
    real_shards: Path, tmp_path: Path, vidpipe: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    original = timm.create_model

    def create_model(name: str, *, pretrained: bool = False, **options: object) -> object:
        if pretrained:
            raise OSError("no route to host")
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    result = vidpipe("features", real_shards, "--backbone", NAME, "--out", tmp_path / "out", "--device", "cpu")
    assert result.code == 1
    assert f"timm:{NAME}: can't be fetched (OSError: no route to host)" in result.err
    assert "give a file's path" in result.err
