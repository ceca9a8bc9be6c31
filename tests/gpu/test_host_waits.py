"""What would make the host wait for a GPU in the steady state, found without one: see `device_copies`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpu.device_copies import META, HostWaits
from gpu.host_syncs import host_syncs
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from loader.pictures import changed_by
from torch import Tensor

import vidpipe
from vidpipe.bench.clips import StoredClips
from vidpipe.bench.epoch.session import EpochSession
from vidpipe.bench.gpu.models import MODELS
from vidpipe.bench.loader.arms.base import ArmBatch
from vidpipe.loader import Batch
from vidpipe.loader.assemble import make_batch
from vidpipe.loader.augmentation.randaugment import OPERATIONS
from vidpipe.loader.reading.source import Source
from vidpipe.loader.request import frames_at
from vidpipe.loader.sampling.place import Spot
from vidpipe.shards.codecs import CodecSpec
from vidpipe.shards.manifest import Normalization
from vidpipe.train.checkpoint import Preprocessing
from vidpipe.train.optim import run_length
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.setup import build_learner, build_model
from vidpipe.train.step import Learner
from vidpipe.video.spec import ClipSpec

CLIPS = 4


class _MetaAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Nothing to set up."""


class _MetaFabric(Fabric):
    def _validate_setup_optimizers(self, optimizers: object) -> None:
        """Let an optimiser of parameters without content be."""


def learner_on_meta(recipe: str, *overrides: str) -> Learner:
    loaded = load_train_recipe(recipe, overrides, batch_size=CLIPS)
    normalization = Normalization(mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    preprocessing = Preprocessing(
        dataset="none",
        classes=tuple("abcde"),
        clip=ClipSpec(frames=8),
        codec=CodecSpec(),
        normalization=normalization,
        frames=8,
        stride=None,
        size=64,
    )
    built = build_model(loaded.model, preprocessing, seed=0, load_init=False)
    fabric = _MetaFabric(strategy=SingleDeviceStrategy(device=META, accelerator=_MetaAccelerator()))
    length = run_length(loaded.schedule, steps_per_epoch=10)
    return build_learner(fabric, loaded, built.module, length=length, preprocessing=preprocessing)


def empty_batch() -> Batch:
    def of(dtype: torch.dtype) -> Tensor:
        return torch.empty(CLIPS, dtype=dtype, device=META)

    return Batch(
        video=torch.empty(CLIPS, 3, 8, 64, 64, device=META),
        label=of(torch.int64),
        key=[*"wxyz"],
        clip_key=[*"wxyz"],
        video_path=[*"wxyz"],
        is_padding=of(torch.bool),
        view=of(torch.int64),
        dataset=of(torch.int64),
    )


TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.recipe)
def test_a_training_step_asks_for_no_value_and_waits_for_no_copy(model: object) -> None:
    geometry = ("data.frames=8", "data.stride=null", "data.epoch_unit=clip", *model.narrow, "data.size=64")
    learner = learner_on_meta(model.recipe, *geometry)
    with HostWaits() as waits:
        for step in range(2):
            learner.take_step([empty_batch(), empty_batch()], step=step, epoch=0)
    assert not waits.found, "\n".join(dict.fromkeys(waits.found))


def test_mixing_of_every_kind_waits_for_no_copy() -> None:
    every = ("mixing.mixup=0.8", "mixing.cutmix=1.0", "mixing.erase=1.0", "model.width=48", "model.num_heads=3")
    learner = learner_on_meta("videomae", "data.frames=8", "data.size=64", "model.depth=1", *every)
    with HostWaits() as waits:
        for epoch in range(4):
            learner.mix(empty_batch(), epoch=epoch)
    assert not waits.found, "\n".join(dict.fromkeys(waits.found))


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_operation_of_rand_augment_waits_for_a_copy(name: str) -> None:
    with HostWaits() as waits:
        changed_by(name, torch.empty(8, 3, 64, 64, dtype=torch.uint8, device=META), 0.7, 1)
    assert not waits.found, "\n".join(waits.found)


def test_labels_and_marks_are_copied_without_waiting(motion_shards: Path) -> None:
    source = Source(motion_shards, "train", options=vidpipe.LoaderOptions())
    with vidpipe.Loader(motion_shards, batch_size=CLIPS, size=32, augment="train", backend="torch") as loader:
        requests = loader._requests(Spot(0, 0))
    with HostWaits() as waits:
        batch = make_batch(source, requests, torch.empty(CLIPS, 3, 16, 32, 32, device=META))
    source.close()
    assert all(tensor.device == META for tensor in (batch.label, batch.is_padding, batch.view, batch.dataset))
    assert not waits.found, "\n".join(waits.found)


def test_batches_of_the_epoch_benchmark_are_copied_without_waiting(motion_shards: Path, tmp_path: Path) -> None:
    folders, setup = {"tensor": motion_shards / "train"}, {"batch_size": CLIPS, "size": 32, "workers": 1}
    session = EpochSession(folders, tmp_path, device="meta", scratch=tmp_path, **setup)
    keys = [clip.key for clip in StoredClips(folders["tensor"]).clips[:CLIPS]]
    with HostWaits() as waits:
        batch = session._labelled(ArmBatch(keys, torch.empty(CLIPS, 3, 16, 32, 32)))
    assert batch.video.device == batch.label.device == META
    assert not waits.found, "\n".join(waits.found)


@pytest.mark.parametrize("places", [slice(None), slice(1, 6, 2), [0, 1, 5]])
def test_frames_of_a_read_are_taken_without_waiting(places: slice | list[int]) -> None:
    with HostWaits() as waits:
        frames = frames_at(torch.empty(8, 4, 4, 3, dtype=torch.uint8, device=META), places)
    assert frames.is_contiguous() and not waits.found, "\n".join(waits.found)


@pytest.mark.parametrize(
    ("offence", "message"),
    [
        (lambda x: x.sum().item(), "a value is asked for"),
        (lambda x: bool(x.any()), "a value is asked for"),
        (lambda x: torch.full((4,), 2.0).to(META), "a copy is waited for"),
        (lambda x: x.copy_(torch.full((4,), 2.0)), "a copy is waited for"),
        pytest.param(
            lambda x: torch.tensor([1.0, 2.0], device=META) + x[:2],
            "a tensor is made on the device",
            marks=pytest.mark.skipif(TORCH < (2, 15), reason="torch 2.11 makes it where nobody can see it"),
        ),
        (lambda x: x[x > 1], "a mask picks elements"),
        (lambda x: x[torch.tensor([0, 2])], "places are copied to the device"),
        (lambda x: x.nonzero(), "the content decides the size"),
    ],
)
def test_each_kind_of_waiting_is_found(offence: Callable[[Tensor], object], message: str) -> None:
    waits = HostWaits()
    try:
        with waits:
            offence(torch.empty(4, device=META))
    except (RuntimeError, NotImplementedError):
        pass  # what needs content ends here, after it was noted
    assert any(message in found for found in waits.found)


def test_on_a_gpu_only_synchronising_calls_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns of the mode itself, too, when it is switched on for the first time."""

    def switch(mode: str) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", switch)
    with host_syncs(torch.device("cuda")) as waits:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at ...)", stacklevel=1)
    assert len(waits) == 1


@pytest.mark.parametrize(
    "innocent",
    [
        lambda x: torch.full((4,), 2.0).to(META, non_blocking=True) + x,
        lambda x: torch.where(x > 1, x, 0.0).sum() * 2,
        lambda x: x.masked_fill_(x > 1, 3.0)[1:3].clamp(min=0),
    ],
)
def test_what_is_only_queued_is_not_found(innocent: Callable[[Tensor], object]) -> None:
    with HostWaits() as waits:
        innocent(torch.empty(4, device=META))
    assert not waits.found
