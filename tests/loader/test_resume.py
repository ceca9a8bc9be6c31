"""Going on from a state: exactly the next batch, after any death of the process; other data or clips are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader.processes import batches, run_loader, start_loader

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.augmentation.augment import Augmentation, keyed_rng, sample_rng
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.sampling.order import keyed_integers, permute
from vidpipe.loader.sampling.place import Place, Spot
from vidpipe.loader.state import fingerprint

LOADER = {"batch_size": 3, "size": 32, "augment": "train", "backend": "torch", "seed": 11}


def digests(lines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(line["digest"], line["keys"]) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"shuffle": "windowed", "shuffle_window": 2, "balance": "class"}])
def test_after_kill_9_the_next_batch_is_bit_identical(
    motion_shards: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    (whole,) = run_loader(motion_shards, tmp_path / "whole", {"loader": LOADER, "options": options})
    process = start_loader(
        motion_shards, tmp_path / "killed", {"loader": LOADER, "options": options, "stall_at_batch": 4}
    )
    process.wait_until(lambda: len(batches(tmp_path / "killed")) == 4)
    process.kill()
    killed = batches(tmp_path / "killed")
    assert digests(killed) == digests(whole[:4]) and len(whole) > 4
    task = {"loader": LOADER, "options": options, "state": killed[-1]["state"]}
    (rest,) = run_loader(motion_shards, tmp_path / "rest", task)
    assert digests(killed + rest) == digests(whole)


@pytest.mark.parametrize("options", [{}, {"shuffle": "windowed", "shuffle_window": 1}])
def test_any_sequence_of_world_sizes_covers_the_epoch(motion_shards: Path, options: dict[str, Any]) -> None:
    state: dict[str, Any] | None = None
    seen: list[str] = []
    for world_size, steps in ((2, 2), (3, 1), (2, 3), (5, 100)):
        states = []
        for rank in range(world_size):
            with vidpipe.Loader(
                motion_shards,
                batch_size=2,
                size=32,
                backend="torch",
                rank=rank,
                world_size=world_size,
                options=vidpipe.LoaderOptions(**options),
            ) as loader:
                if state:
                    loader.load_state_dict(state)
                for _, batch in zip(range(steps), loader, strict=False):
                    seen += [k for k, padding in zip(batch.key, batch.is_padding, strict=True) if not padding]
                states.append(json.loads(json.dumps(loader.state_dict())))
        assert all(other == states[0] for other in states)
        state = states[0]
    assert len(seen) == len(set(seen)) == 32
    assert state is not None


@pytest.mark.parametrize(
    ("other", "options", "reason"),
    [
        ({"seed": 12}, {}, "seed 11 (this loader's is 12)"),
        ({"split": "val"}, {}, "shards '"),
        ({"size": 48}, {}, "size 32 (this loader's is 48)"),
        ({"frames": 2}, {}, "frames 16 (this loader's is 2)"),
        ({"frames": 2, "stride": 4}, {}, "frame_step [1] (this loader's is [2])"),
        ({"augment": None}, {}, "augment 'train' (this loader's is None)"),
        ({}, {"epoch_unit": "clip"}, "epoch_unit 'video' (this loader's is 'clip')"),
        ({}, {"crop_scale": (0.5, 1.0)}, "crop_scale [0.08, 1.0] (this loader's is [0.5, 1.0])"),
        ({}, {"affine": vidpipe.Affine(rotation=9)}, "affine None (this loader's is {'rotation': 9.0, 'shear': 0.0,"),
        ({}, {"shuffle": "windowed"}, "shuffle 'global' (this loader's is 'windows of 8 shards')"),
        ({}, {"where": "label > 1"}, "where None (this loader's is 'label > 1')"),
        ({}, {"balance": "class"}, "balance None (this loader's is 'class')"),
    ],
)
def test_a_state_of_other_clips_is_refused_with_what_differs(
    motion_shards: Path, other: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        next(iter(loader))
        state = loader.state_dict()
    loader = vidpipe.Loader(motion_shards, **{**LOADER, **other}, options=vidpipe.LoaderOptions(**options))
    with loader, pytest.raises(UsageError) as caught:
        loader.load_state_dict(state)
    assert reason in str(caught.value)
    assert loader.epoch == 0 and loader.state_dict()["consumed"] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalization": {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}}, "normalization {'mean': "),
        ({"classes": tuple("hgfedcba")}, "classes '"),
        ({"horizontal_flip": True}, "horizontal_flip False (this loader's is True)"),
    ],
)
def test_a_state_of_other_pixels_or_labels_is_refused(
    motion_shards: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """Of the same archives with another manifest."""
    folder = Path(shutil.copytree(motion_shards / "train", tmp_path / "train"))
    with vidpipe.Loader(folder, **LOADER) as loader:
        state = loader.state_dict()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with vidpipe.Loader(folder, **LOADER) as loader:
        with pytest.raises(UsageError) as caught:
            loader.load_state_dict(state)
        assert reason in str(caught.value) and str(caught.value).count("this loader's") == 1
    if "horizontal_flip" in change:  # without augmentation nothing is mirrored
        with vidpipe.Loader(folder, **{**LOADER, "augment": None}) as loader:
            assert loader.state_dict()["content"]["horizontal_flip"] is False


def evenly_sampled(folder: Path, copy: Path) -> Path:
    """A split with a manifest that says so."""
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["clip"] |= {"sampling": "uniform", "stride": 1}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_state_of_other_evenly_spread_frames_is_refused(motion_shards: Path, tmp_path: Path) -> None:
    """One of each eighth of a clip is something else than eight that follow each other."""
    folder = evenly_sampled(motion_shards / "train", tmp_path / "train")
    with (
        vidpipe.Loader(folder, **LOADER, frames=8) as spread,
        vidpipe.Loader(folder, **LOADER, frames=8, stride=1) as run,
    ):
        with pytest.raises(UsageError, match=r"frame_step \['segments'\] \(this loader's is \[1\]\)"):
            run.load_state_dict(spread.state_dict())
        spread.load_state_dict(spread.state_dict())
        with pytest.raises(UsageError, match=r"frame_step \[1\] \(this loader's is \['segments'\]\)"):
            spread.load_state_dict(run.state_dict())


def test_a_state_of_version_2_is_taken(motion_shards: Path, tmp_path: Path) -> None:
    """In which evenly spread frames were 1 apart, and crops had ranges also where none was made."""
    folder = evenly_sampled(motion_shards / "train", tmp_path / "train")
    with vidpipe.Loader(folder, **{**LOADER, "augment": None}, frames=8) as loader:
        now = loader.state_dict()
        earlier = {"frame_step": [1], "crop_scale": [0.5, 1.0]}
        loader.load_state_dict({**now, "version": 2, "consumed": 4, "content": {**now["content"], **earlier}})
        assert loader.state_dict() == {**now, "consumed": 4}
        with pytest.raises(UsageError, match=r"frame_step \[2\] \(this loader's is \['segments'\]\)"):
            loader.load_state_dict({**now, "version": 2, "content": {**now["content"], "frame_step": [2]}})


def test_a_first_frame_of_evenly_sampled_clips_is_refused(motion_shards: Path, tmp_path: Path) -> None:
    folder, options = evenly_sampled(motion_shards / "train", tmp_path / "train"), vidpipe.LoaderOptions(window=3)
    with pytest.raises(UsageError, match=r"^window: got 3, but 8 frames of evenly sampled ones have no first frame"):
        vidpipe.Loader(folder, **LOADER, frames=8, options=options)
    with vidpipe.Loader(folder, **LOADER, frames=8, stride=1, options=options) as loader:
        assert next(iter(loader)).video.shape[2] == 8


def test_what_changes_no_clip_may_differ(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        iterator = iter(loader)
        next(iterator)
        state, following = loader.state_dict(), next(iterator)
    options = vidpipe.LoaderOptions(threads=1, check="off", on_bad="skip", prefetch_batches=0)
    with vidpipe.Loader(motion_shards, **{**LOADER, "batch_size": 2}, options=options) as loader:
        loader.load_state_dict(state)
        batch = next(iter(loader))
    assert batch.key == following.key[:2] and torch.equal(batch.video, following.video[:2])


def test_a_state_that_is_none_is_refused(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        for state, message in (
            ({}, "version None, expected"),
            ({**loader.state_dict(), "version": 99}, "version 99, expected"),
            ({"version": 2, "content": {}}, "lacks epoch, consumed, expected what state_dict"),
            ({**loader.state_dict(), "content": None}, "content: got None, expected what state_dict"),
            (None, "got None, expected what state_dict"),
            ("x", "got 'x', expected what state_dict"),
        ):
            with pytest.raises(UsageError, match=f"loader state: {message}"):
                loader.load_state_dict(state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"consumed": -5}, "consumed: got -5, expected a whole number, at least 0"),
        ({"consumed": 33}, "consumed: got 33, but an epoch has 32 samples"),
        ({"consumed": "x"}, "consumed: got 'x'"),
        ({"epoch": -3}, "epoch: got -3"),
        ({"epoch": 1.5}, r"epoch: got 1\.5"),
    ],
)
def test_a_place_that_no_epoch_has_is_refused(motion_shards: Path, place: dict[str, Any], message: str) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        with pytest.raises(UsageError, match=message):
            loader.load_state_dict({**loader.state_dict(), **place})
        with pytest.raises(UsageError, match="epoch: got -1, expected"):
            loader.set_epoch(-1)
        assert loader.state_dict()["consumed"] == 0 and loader.epoch == 0


def broken_off(loader: vidpipe.Loader) -> Iterator[vidpipe.Batch]:
    for number, batch in enumerate(loader, start=1):
        yield batch
        if number == len(loader):
            break


LOOPS: dict[str, Callable[[vidpipe.Loader], Iterable[vidpipe.Batch]]] = {
    "exhausted": iter,
    "islice": lambda loader: islice(loader, len(loader)),
    "zip": lambda loader: (batch for _, batch in zip(range(len(loader)), loader, strict=False)),
    "break": broken_off,
}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_every_way_to_loop_gives_one_epoch_after_the_other(motion_shards: Path, loop: str, drop_last: bool) -> None:
    epochs, states = [], []
    with vidpipe.Loader(motion_shards, **LOADER, drop_last=drop_last) as loader:
        for epoch in range(3):
            keys = []
            for batch in LOOPS[loop](loader):
                assert loader.epoch == epoch
                keys += batch.key
                states.append(loader.state_dict())
            assert loader.epoch == epoch + 1
            epochs.append(keys)
        assert [len(set(keys)) for keys in epochs] == [len(loader) * 3 if drop_last else 32] * 3
        at_the_end = states[len(loader) - 1]
        assert (at_the_end["epoch"], at_the_end["consumed"]) == (1, 0)
        for state in (at_the_end, {**at_the_end, "epoch": 0, "consumed": 30 if drop_last else 32}):
            loader.load_state_dict(state)
            assert loader.epoch == 1
            assert [key for batch in LOOPS[loop](loader) for key in batch.key] == epochs[1]


def test_an_epoch_that_is_over_can_be_had_again(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        iterator = iter(loader)
        keys = [next(iterator).key for _ in range(len(loader))]
        loader.set_epoch(0)
        assert [batch.key for batch in loader] == keys and loader.epoch == 1


def test_an_evaluation_is_whole_after_another_was_broken_off(motion_shards: Path) -> None:
    """As Lightning looks at two batches before it trains."""
    with vidpipe.Loader(motion_shards, **{**LOADER, "augment": None}) as loader:
        first = [batch.key for batch in islice(loader, 2)]
        state = loader.state_dict()
        assert len({key for batch in loader for key in batch.key}) == 32 and loader.epoch == 2
        for _ in range(2):
            loader.set_epoch(0)
            assert [batch.key for batch in islice(loader, 2)] == first
        loader.load_state_dict(state)
        loader.set_epoch(0)  # what is left of it was asked for
        assert sum(len(batch) for batch in loader) == 32 - 6


@pytest.mark.parametrize("move", ["load", "set_epoch", "iterate"])
def test_an_iterator_that_was_left_behind_says_so(motion_shards: Path, move: str) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        beginning, old = loader.state_dict(), iter(loader)
        keys = [next(old).key, next(old).key]
        loader.set_epoch(0)  # it is under way
        keys.append(next(old).key)
        if move == "load":
            loader.load_state_dict(beginning)
        elif move == "set_epoch":
            loader.set_epoch(5)
        else:
            new = iter(loader)
            keys.append(next(new).key)
        state = loader.state_dict()
        with pytest.raises(
            UsageError, match=r"left behind by a newer one, or by load_state_dict or set_epoch; .*iter\("
        ):
            next(old)
        assert loader.state_dict() == state and list(old) == []
        if move == "iterate":
            keys += [batch.key for batch in new]
            assert len({key for batch in keys for key in batch}) == 32


def test_a_place_that_is_left_stays_left() -> None:
    """While a batch is waited for, by another thread, and behind the last one."""
    place = Place(8, batch_size=2, rank=0, world_size=1, drop_last=False, whole_passes=False)

    def made(spot: Spot, batches: int) -> Iterator[int]:
        yield 0
        place.set_epoch(5)
        yield 1

    iterator = place.run(made)
    next(iterator)
    with pytest.raises(UsageError, match="left behind"):
        next(iterator)
    over = place.run(lambda spot, batches: iter([0]))
    next(over)
    place.set_epoch(7)
    with pytest.raises(UsageError, match="left behind"):
        next(over)
    assert place.next == Spot(7, 0)


def test_a_pickled_loader_goes_on_where_it_was(motion_shards: Path) -> None:
    with vidpipe.Loader(motion_shards, **LOADER) as loader:
        iterator = iter(loader)
        next(iterator)
        content, following = pickle.dumps(loader), next(iterator)
    with pickle.loads(content) as again:
        batch = next(iter(again))
    assert batch.key == following.key and torch.equal(batch.video, following.video)


def test_a_state_means_the_same_place_and_clips_to_every_release() -> None:
    """What is drawn is pinned, as states are kept for longer than a release: what changes it needs a new `state.VERSION`."""
    assert permute(np.arange(12), size=12, seed=1, epoch=3).tolist() == [11, 7, 9, 8, 3, 5, 0, 4, 6, 1, 2, 10]
    assert permute(np.arange(6), size=6, seed=1, epoch=3, stream=2).tolist() == [0, 3, 5, 4, 1, 2]
    assert keyed_integers(np.arange(2), seed=5, epoch=7, purpose=1).tolist() == [
        7208818271757214910,
        7962246796274574138,
    ]
    crops = Augmentation(crop_scale=(0.3, 1), crop_ratio=(3 / 4, 4 / 3), flip=True, color=None, affine=None, grey=0)
    drawn = crops.draw(sample_rng(seed=1, epoch=2, sample=0), height=240, width=320, size=224)
    assert drawn.region == Region(top=3, left=135, height=235, width=180, flip=True)
    assert keyed_rng("mixing/0/0/a").random() == 0.3575769360391582
    assert fingerprint(["run", "jump"]) == "777a6c1149770499"
