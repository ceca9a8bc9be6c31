"""Subsets, several data sets with weights, balanced classes: what an epoch holds, exactly."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from loader.damage import rewrite_samples

import vidpipe
from vidpipe.errors import UsageError
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.sampling.sampler import DrawnUnits, Groups, Sampler, Units
from vidpipe.shards.manifest import load_manifest


def loader(shards: Any, *, batch_size: int = 5, augment: str | None = None, **options: Any) -> vidpipe.Loader:
    return vidpipe.Loader(
        shards,
        batch_size=batch_size,
        size=32,
        frames=2,
        augment=augment,
        backend="torch",
        options=vidpipe.LoaderOptions(**options),
    )


def drawn(loader: vidpipe.Loader) -> list[tuple[int, str]]:
    """Data set and key of all that an epoch gives."""
    return [(int(d), key) for batch in loader for d, key in zip(batch.dataset, batch.key, strict=True)]


@pytest.fixture
def other_classes(motion_shards: Path, tmp_path: Path) -> Path:
    """The `motion` val split with its classes in another order and under other names, but for one."""
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "other"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classes"] = [manifest["classes"][3], *(f"new {n}" for n in range(7))]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a split whose manifest says something else."""
    copy = Path(shutil.copytree(folder, to / "changed"))
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_condition_selects_the_samples_of_an_epoch(motion_shards: Path) -> None:
    names = load_manifest(motion_shards / "train").classes[2:4]
    where = f"label_name in {names!r}"
    with loader(motion_shards, where=where) as selected:
        assert selected.num_samples == 8 and len(selected) == 2
        epochs = [list(selected) for _ in range(2)]
    for batches in epochs:
        assert Counter(label for batch in batches for label in batch.label.tolist()) == {2: 4, 3: 4}
    keys = [[key for batch in batches for key in batch.key] for batches in epochs]
    assert sorted(keys[0]) == sorted(keys[1]) and keys[0] != keys[1] and len(set(keys[0])) == 8


def test_a_condition_without_samples_is_refused(motion_shards: Path) -> None:
    with pytest.raises(UsageError, match=r"where: 'label > 100' holds for none of the 32 samples"):
        loader(motion_shards, where="label > 100")


def test_each_clip_of_an_epoch_has_a_name_of_its_own_whatever_the_batches(motion_shards: Path) -> None:
    sets = {motion_shards / "train": 1, motion_shards / "val": 9}  # the same keys in both, and val's several times
    options = vidpipe.LoaderOptions(clips_per_sample=2)
    names = []
    for batch_size, world_size in ((8, 1), (2, 1), (4, 2)):
        clips: dict[str, tuple[str, ...]] = {}
        for rank in range(world_size):
            settings = {"batch_size": batch_size, "rank": rank, "world_size": world_size, "options": options}
            with vidpipe.Loader(sets, size=32, frames=2, augment="train", **settings) as loader:
                for batch in loader:
                    pixels = [hashlib.sha256(clip.numpy().tobytes()).hexdigest() for clip in batch.video]
                    for name, *clip, padding in zip(
                        batch.clip_key, batch.video_key, pixels, batch.is_padding, strict=True
                    ):
                        assert padding or clips.setdefault(name, tuple(clip)) == tuple(clip)
        names.append(clips)
    assert len(set(names[0].values())) == len(names[0]) == 2 * loader.num_samples
    assert names[0] == names[1] == names[2]


def test_data_sets_without_weights_are_taken_whole(motion_shards: Path) -> None:
    with loader([motion_shards / "train", motion_shards / "val"]) as both:
        assert both.num_samples == 48
        counts = Counter(drawn(both))
    assert Counter(dataset for dataset, _ in counts) == {0: 32, 1: 16} and set(counts.values()) == {1}


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
def test_weights_are_shares_of_every_epoch_and_nothing_is_left_out(motion_shards: Path, shuffle: str) -> None:
    weights = {str(motion_shards / "train"): 1.0, str(motion_shards / "val"): 3.0}
    total: Counter[tuple[int, str]] = Counter()
    with loader(weights, shuffle=shuffle, shuffle_window=2) as mixed:
        for _ in range(8):
            epoch = Counter(drawn(mixed))
            assert sum(n for (d, _), n in epoch.items() if d == 0) == 12
            assert sum(n for (d, _), n in epoch.items() if d == 1) == 36
            total += epoch
    # 8 x 12 draws go three times through the 32 of train, 8 x 36 eighteen times through the 16 of val.
    assert {n for (d, _), n in total.items() if d == 0} == {3}
    assert {n for (d, _), n in total.items() if d == 1} == {18}


def test_windows_change_the_order_and_not_what_is_drawn(motion_shards: Path) -> None:
    weights = {str(motion_shards / "train"): 2.0, str(motion_shards / "val"): 1.0}
    epochs = []
    for shuffle in ("global", "windowed"):
        with loader(weights, shuffle=shuffle, shuffle_window=1, balance="class") as mixed:
            epochs.append(drawn(mixed))
    assert Counter(epochs[0]) == Counter(epochs[1]) and epochs[0] != epochs[1]


def test_a_sample_that_comes_again_in_an_epoch_is_cropped_anew(motion_shards: Path) -> None:
    weights = {str(motion_shards / "train"): 1.0, str(motion_shards / "val"): 9.0}
    seen: dict[tuple[int, str], list[torch.Tensor]] = {}
    with loader(weights, augment="train") as mixed:
        for batch in mixed:
            for place, key in enumerate(batch.key):
                seen.setdefault((int(batch.dataset[place]), key), []).append(batch.video[place])
    several = [videos for videos in seen.values() if len(videos) > 1]
    assert several
    assert not any(torch.equal(a, b) for videos in several for a in videos for b in videos if a is not b)


def test_classes_are_united_by_name(motion_shards: Path, other_classes: Path) -> None:
    classes = load_manifest(motion_shards / "val").classes
    with loader([motion_shards / "val", other_classes]) as both:
        assert both.classes == (*classes, *(f"new {n}" for n in range(7)))
        assert both.manifest.classes == both.classes
        for batch in both:
            for dataset, label, path in zip(
                batch.dataset.tolist(), batch.label.tolist(), batch.video_path, strict=True
            ):
                own = classes.index(path.split("/")[1])
                assert both.classes[label] == (classes[own] if dataset == 0 else [classes[3], *both.classes[8:]][own])


def test_classes_are_balanced_over_data_sets(motion_shards: Path, other_classes: Path) -> None:
    with loader([motion_shards / "train", other_classes], balance="class") as both:
        assert both.num_samples == 45  # 48 samples of 15 classes, rounded to three for each
        for _ in range(2):
            labels = Counter(label for batch in both for label in batch.label.tolist())
            assert labels == dict.fromkeys(range(15), 3)


def test_classes_are_balanced_within_weighted_data_sets(motion_shards: Path, other_classes: Path) -> None:
    weights = {str(motion_shards / "train"): 3.0, str(other_classes): 1.0}
    with loader(weights, balance="class", where="label < 4") as mixed:
        pairs = Counter((int(d), int(label)) for b in mixed for d, label in zip(b.dataset, b.label, strict=True))
    # 16 + 8 samples: 18 draws for four classes of train, 6 for four of the other.
    assert set(Counter(d for d, _ in pairs).values()) == {4}
    assert {n for (d, _), n in pairs.items() if d == 0} == {4} and {n for (d, _), n in pairs.items() if d == 1} == {2}


def test_what_is_drawn_and_the_shards_ahead_go_by_epoch_and_position_alone(motion_shards: Path) -> None:
    """In whatever order they are asked for."""
    index = load_index(motion_shards / "train", load_manifest(motion_shards / "train"))
    units = Units(index, matching=None, by_video=False)
    groups = Groups(index.label.astype(np.int64), np.full(8, 1 / 8), seed=0)

    def made(**options: Any) -> Sampler:
        return Sampler(units, index, **{"groups": None, "shard_window": None, "seed": 0, **options})

    for options in ({}, {"shard_window": 1}, {"groups": groups}, {"groups": groups, "shard_window": 1}):
        sampler = made(**options)
        for positions, epoch in (([4, 5], 0), ([4, 5], 1), ([30, 0], 1), ([4, 5], 0)):
            found = sampler.draw(np.array(positions), epoch)
            whole = made(**options).draw(np.arange(32), epoch)
            assert (found.units == whole.units[positions]).all() and (found.repeats == whole.repeats[positions]).all()
        sampler = made(**options)
        for epoch in (2, 0, 1) if "shard_window" in options else ():
            position, drawn = 0, index.shard[made(**options).draw(np.arange(32), epoch).units]
            while position < 32:
                ((shard,), _) = sampler.shards_ahead(position, epoch)
                count = int((drawn == shard).sum())
                assert count and (drawn[position : position + count] == shard).all()
                position += count


@pytest.mark.parametrize("sizes", [[1, 5, 50], [3, 3], [7]])
def test_groups_go_through_all_their_units_before_any_comes_again(sizes: list[int]) -> None:
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups = Groups(group, np.full(len(sizes), 1 / len(sizes)), seed=5)
    each = round(sum(sizes) / len(sizes))
    assert groups.num_slots == each * len(sizes)
    total = np.zeros(len(group), np.int64)
    for epoch in range(60):
        result = groups.draw(np.arange(groups.num_slots), epoch)
        assert Counter(group[result.units].tolist()) == dict.fromkeys(range(len(sizes)), each)
        pairs = list(zip(result.units.tolist(), result.repeats.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) and result.repeats.min() >= 0
        np.add.at(total, result.units, 1)
        for number, size in enumerate(sizes):
            assert result.repeats[group[result.units] == number].max() <= -(-each // size)
            counts = total[group == number]
            assert counts.max() - counts.min() <= 1 and counts.sum() == (epoch + 1) * each and len(counts) == size


def test_a_video_is_drawn_among_its_selected_clips(motion_shards: Path) -> None:
    """Five videos of 3, 1, 2, 4 and 2 clips; the condition leaves some clips of four of them."""
    index = replace(
        load_index(motion_shards / "train", load_manifest(motion_shards / "train")),
        first_clip=np.array([0, 3, 4, 6, 10, 12]),
    )
    matching = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1], bool)
    units = Units(index, matching=matching, by_video=True)
    assert len(units) == 4 and units.clip_counts().tolist() == [2, 1, 3, 1]
    clips = [units.clips(unit).tolist() for unit in range(4)]
    assert clips == [[0, 2], [3], [7, 8, 9], [11]]
    assert [units.unit_of(sample) for clip in clips for sample in clip] == [0, 0, 1, 2, 2, 2, 3]
    seen: dict[int, set[int]] = {}
    for epoch in range(40):
        samples = units.samples(DrawnUnits(np.arange(4), np.zeros(4, np.int64)), seed=0, epoch=epoch, random=True)
        for unit, sample in enumerate(samples.tolist()):
            seen.setdefault(unit, set()).add(sample)
    assert seen == {0: {0, 2}, 1: {3}, 2: {7, 8, 9}, 3: {11}}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            lambda m: m["normalization"].update(mean=[0.1, 0.2, 0.3]),
            {},
            r"is normalised with .*changed with mean \(0.1, 0.2, 0.3\).*LoaderOptions\(normalization=",
        ),
        (lambda m: m["clip"].update(frames=12), {}, r"frames: .*train 16, .*changed 12.*say which"),
        (
            lambda m: m["clip"].update(stride=3),
            {"frames": 2},
            r"stride: .*train 2, .*changed 3.*say which",
        ),
        (
            lambda m: m["clip"].update(stride=3),
            {"frames": 2, "stride": 4},
            r"stored at stride 3: expected a multiple of 3",
        ),
        (
            lambda m: m["clip"].update(sampling="fps", fps=8, stride=1),
            {"frames": 2, "stride": 4},
            r"stride: the data sets count different frames \(.*train native, .*changed at 8.0 fps\); prepare them alike",
        ),
    ],
)
def test_data_sets_that_do_not_go_together_are_refused_with_numbers(
    motion_shards: Path, tmp_path: Path, change: Any, arguments: dict[str, Any], message: str
) -> None:
    other = changed(motion_shards / "val", tmp_path, change)
    with pytest.raises(UsageError, match=message):
        vidpipe.Loader([motion_shards / "train", other], backend="torch", **arguments)


def test_data_sets_of_other_strides_can_be_read_at_one_that_fits_both(motion_shards: Path, tmp_path: Path) -> None:
    other = changed(motion_shards / "val", tmp_path, lambda m: m["clip"].update(stride=3))
    with vidpipe.Loader([motion_shards / "train", other], size=32, frames=2, stride=6, backend="torch") as both:
        assert sum(len(batch) for batch in both) == 48 and both.num_frames == 2


def test_data_sets_of_other_normalisations_are_mixed_by_one_that_is_named(motion_shards: Path, tmp_path: Path) -> None:
    other = changed(motion_shards / "val", tmp_path, lambda m: m["normalization"].update(mean=[0.1, 0.2, 0.3]))
    named = vidpipe.Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with loader([motion_shards / "val", other], batch_size=48, normalization=named) as both:
        clips: dict[str, list[torch.Tensor]] = {}
        for key, video in ((key, video) for batch in both for key, video in zip(batch.key, batch.video, strict=True)):
            clips.setdefault(key, []).append(video)
    assert len(clips) == 16 and all(torch.equal(*videos) for videos in clips.values())


def test_wrong_weights_are_refused(motion_shards: Path) -> None:
    for shards, message in (({str(motion_shards): 0.0}, "weight of .*: got 0.0"), ([], "no folder"), ({}, "no folder")):
        with pytest.raises(UsageError, match=message):
            vidpipe.Loader(shards)


def test_balancing_needs_labels(motion_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(motion_shards / "val", tmp_path / "val"))

    def without_three(table: pa.Table) -> pa.Table:
        labels = table.column("label").to_numpy().copy()
        labels[:3] = -1
        return table.set_column(table.column_names.index("label"), "label", pa.array(labels, pa.int32()))

    rewrite_samples(folder, without_three)
    with pytest.raises(UsageError, match="3 samples have no label; leave them out with where='label >= 0'"):
        loader(folder, balance="class")
    with loader(folder, balance="class", where="label >= 0") as rest:
        assert -1 not in {label for batch in rest for label in batch.label.tolist()}
