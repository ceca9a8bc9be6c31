"""The loader on a GPU: the reference's clips, page-locked copies, exact resuming, no waiting, bounded memory."""

from __future__ import annotations

import gc
import itertools
import os
from pathlib import Path

import pytest
import torch
from gpu.host_syncs import host_syncs
from gpu.memory_use import bytes_in_use

import vidpipe
from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.color import ColorJitter

pytestmark = pytest.mark.gpu

BACKENDS = ["dali", "torch"]


def decoded_where(device: torch.device, backend: str) -> str:
    """On the GPU where it can be, which by default `mp4` isn't."""
    return "gpu" if device.type == "cuda" and backend == "dali" else "cpu"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("augment", [None, "train"])
@pytest.mark.parametrize("codec", ["tensor", "jpeg", "mp4"])
def test_batches_equal_the_reference(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, backend: str, augment: str | None
) -> None:
    """Decoded on the CPU: within one of 255 levels, and a frame of two pixels, as published in docs/benchmarks.md."""
    options = {"batch_size": 8, "frames": 8, "size": 48, "augment": augment, "seed": 3}
    options["options"] = vidpipe.LoaderOptions(decode="cpu")
    with vidpipe.Loader(codec_shards[codec], backend="torch", **options) as reference:
        expected = list(reference)
    with vidpipe.Loader(codec_shards[codec], backend=backend, device=cuda, **options) as loader:
        batches = list(loader)
    assert len(batches) == 4
    for batch, other in zip(batches, expected, strict=True):
        assert batch.video.device == cuda and batch.label.device == cuda and batch.key == other.key
        assert torch.equal(batch.label.cpu(), other.label)
        difference = (batch.video.cpu() - other.video).abs()
        assert difference[..., 2:-2, 2:-2].max() < 0.018 and difference.mean() < 0.006


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["tensor", "jpeg"])
def test_processes_read_what_threads_read(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, backend: str
) -> None:
    if cuda.type == "cpu" and backend == "torch":
        pytest.skip("on the CPU, backend torch reads in threads only")
    batches = {}
    for readers in ("threads", "processes"):
        options = vidpipe.LoaderOptions(readers=readers, decode=decoded_where(cuda, backend))
        with vidpipe.Loader(
            codec_shards[codec], batch_size=8, size=48, augment="train", backend=backend, device=cuda, options=options
        ) as loader:
            batches[readers] = [batch.video.cpu() for _ in range(3) for batch in loader]
    assert torch.equal(torch.cat(batches["processes"]), torch.cat(batches["threads"]))


def test_processes_read_for_a_gpu_where_they_can_be_had(
    motion_shards: Path, cuda: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def readers() -> str:
        with vidpipe.Loader(motion_shards, batch_size=8, size=48, device=cuda) as loader:
            assert len(list(loader)) == 4
            return loader.readers

    on_gpu = cuda.type == "cuda"
    assert readers() == ("processes" if on_gpu else "threads")
    monkeypatch.setattr("vidpipe.loader.reading.shared_memory.ADDRESSES", 1 << 62)
    assert readers() == "threads"
    assert ("threads read instead of processes" in caplog.text) == on_gpu


def test_shards_at_a_url_are_read_by_threads_for_a_gpu_too(bucket: str, cuda: torch.device) -> None:
    with vidpipe.Loader(bucket, batch_size=8, size=48, device=cuda) as loader:
        assert loader.readers == "threads" and len(list(loader)) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_that_is_drawn_is_done_on_the_gpu_too(motion_shards: Path, cuda: torch.device, backend: str) -> None:
    """Within a few levels of 255: colours multiply the rounding of the resize, and turned borders lie inside."""
    options = vidpipe.LoaderOptions(
        color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8),
        affine=Affine(rotation=30, shear=10, translation=0.1, scale=(0.5, 1.25), prob=0.7),
        clips_per_sample=2,
    )
    settings = {"batch_size": 8, "size": 48, "augment": "train", "seed": 3, "options": options}
    with vidpipe.Loader(motion_shards, backend="torch", **settings) as reference:
        expected = list(reference)
    with vidpipe.Loader(motion_shards, backend=backend, device=cuda, dtype="bfloat16", **settings) as loader:
        batches = list(loader)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.key == other.key and batch.video.dtype == torch.bfloat16
        difference = (batch.video.cpu().float() - other.video).abs()[..., 2:-2, 2:-2]
        assert difference.max() < 0.2 and difference.mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["tensor", "jpeg"])
def test_resuming_is_exact(codec_shards: dict[str, Path], cuda: torch.device, codec: str, backend: str) -> None:
    """Bit for bit, augmentation included, in the middle of an epoch and over its end."""
    options = {"batch_size": 5, "size": 48, "augment": "train", "seed": 7, "backend": backend, "device": cuda}
    with vidpipe.Loader(codec_shards[codec], dtype="bfloat16", **options) as loader:
        batches, states = [], []
        for _ in range(2):
            for batch in loader:
                batches.append(batch)
                states.append(loader.state_dict())
    with vidpipe.Loader(codec_shards[codec], dtype="bfloat16", **options) as resumed:
        resumed.load_state_dict(states[2])
        again = [*resumed, *resumed]
    assert len(again) == len(batches) - 3
    for batch, other in zip(again, batches[3:], strict=True):
        assert (
            batch.key == other.key and torch.equal(batch.video, other.video) and torch.equal(batch.label, other.label)
        )


def test_a_wait_for_the_device_is_noticed(true_cuda: torch.device) -> None:
    with host_syncs(true_cuda) as waits:
        torch.ones(1, device=true_cuda).item()
    assert waits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["tensor", "jpeg", "mp4"])
def test_nothing_waits_for_the_device_in_the_steady_state(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, backend: str
) -> None:
    """The consumer's thread only queues work: batches of the loader, and a step of a model on them."""
    model = torch.nn.Conv3d(3, 8, 3, device=cuda, dtype=torch.bfloat16)
    options = {"batch_size": 4, "size": 48, "augment": "train", "backend": backend, "device": cuda}
    options["options"] = vidpipe.LoaderOptions(decode=decoded_where(cuda, backend))
    with vidpipe.Loader(codec_shards[codec], frames=8, dtype="bfloat16", **options) as loader:
        batches = iter(loader)
        next(batches)
        with host_syncs(cuda) as waits:
            for batch, _ in zip(batches, range(4), strict=False):
                logits = model(batch.video).mean(dim=(2, 3, 4)).float()
                torch.nn.functional.cross_entropy(logits, batch.label).backward()
    assert not waits, "\n".join(waits)


@pytest.mark.parametrize(
    ("codec", "backend", "readers"),
    [
        ("jpeg", "dali", "threads"),
        ("jpeg", "torch", "threads"),
        ("mp4", "dali", "threads"),
        ("tensor", "dali", "processes"),
    ],
)
def test_memory_stays_flat(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, backend: str, readers: str
) -> None:
    """Of the device and of the host, over many epochs; the device's is that of all processes, so no other may be at work."""
    epochs = 30 if codec == "mp4" else 60
    if "PYTEST_XDIST_WORKER" in os.environ and cuda.type == "cuda":
        pytest.skip("other tests use the device at the same time")
    options = {"batch_size": 8, "frames": 8, "size": 64, "augment": "train", "backend": backend, "device": cuda}
    options["options"] = vidpipe.LoaderOptions(decode=decoded_where(cuda, backend), readers=readers)
    with vidpipe.Loader(codec_shards[codec], dtype="bfloat16", **options) as loader:
        used = []
        for epoch in range(epochs):
            for batch in loader:
                del batch
            if epoch + 1 in (epochs // 2, epochs):
                gc.collect()
                used.append(bytes_in_use(cuda))
    for name, before in used[0].items():
        assert used[1][name] - before < 24 << 20, (
            f"{name}: {before:,} bytes after half of {epochs} epochs, {used[1][name]:,} after all"
        )


@pytest.mark.parametrize("readers", ["threads", "processes"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_are_copied_from_page_locked_memory(
    motion_shards: Path, true_cuda: torch.device, backend: str, readers: str
) -> None:
    """The profiler names the kind of memory that each copy to the device is from."""
    from torch.profiler import ProfilerActivity, profile

    options = vidpipe.LoaderOptions(readers=readers)
    with vidpipe.Loader(motion_shards, batch_size=8, backend=backend, device=true_cuda, options=options) as loader:
        batches = iter(loader)
        next(batches)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in itertools.chain(batches, loader, loader):  # what comes first was copied before
                pass
            torch.cuda.synchronize(true_cuda)
    seconds = {event.key: event.self_device_time_total for event in profiler.key_averages()}
    copies = sum(time for name, time in seconds.items() if "HtoD" in name)
    pageable = sum(time for name, time in seconds.items() if "HtoD" in name and "Pageable" in name)
    assert 0 <= pageable < copies / 3, seconds
