"""nvJPEG and NVDEC in the loader: the clips that the CPU decodes, exact resuming, damage, several clips of one read.

A rehearsal on the CPU has DALI's decoder of JPEG there; for H.264 it has none.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest
import torch
from command_line import RunCommand
from loader.damage import copied, garbage

import vidpipe
from vidpipe.errors import BadSampleError, VidpipeError
from vidpipe.loader import LoaderOptions

pytestmark = pytest.mark.gpu

# Of the model's input, in levels of 255. Decoders may differ in how they interpolate chroma and round; H.264's colours are
# brought from what DALI takes them for to what they are, after 8 bits.
LEAST_PSNR = {"jpeg": 38.0, "mp4": 32.0}
LEAST_PSNR_OF_A_FRAME = {"jpeg": 34.0, "mp4": 28.0}  # the next frame is mostly at 23 dB


@pytest.fixture(params=["jpeg", "mp4"])
def codec(request: pytest.FixtureRequest, cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> str:
    """A codec that the device decodes."""
    if cuda.type == "cpu":
        if request.param == "mp4":
            pytest.skip("DALI has no H.264 on the CPU")
        monkeypatch.setattr(
            "vidpipe.loader.engines.backend.device_codecs",
            lambda decode, backend, device: frozenset({"jpeg"} if decode == "gpu" else ()),
        )
    return str(request.param)


def batches(folder: Path, device: torch.device, decode: str, **settings: object) -> list[vidpipe.Batch]:
    options = {"decode": decode, **settings.pop("options", {})}
    settings = {"batch_size": 8, "frames": 8, "size": 48, "seed": 3, **settings}
    with vidpipe.Loader(folder, device=device, backend="dali", options=LoaderOptions(**options), **settings) as loader:
        assert loader.backend == "dali"
        return list(loader)


def check_alike(codec: str, ours: list[vidpipe.Batch], theirs: list[vidpipe.Batch]) -> None:
    assert [batch.key for batch in ours] == [batch.key for batch in theirs]
    difference = torch.cat([(a.video - b.video).cpu() for a, b in zip(ours, theirs, strict=True)])
    # The shards' normalisation is ImageNet's, whose standard deviations are about 0.226.
    squares = (difference * 0.226).square()
    assert -10 * squares.mean().log10() >= LEAST_PSNR[codec]
    assert (-10 * squares.mean(dim=(1, 3, 4)).log10()).min() >= LEAST_PSNR_OF_A_FRAME[codec]
    assert (difference.mean(dim=(0, 2, 3, 4)).abs() * 0.226 * 255).max() < 1.0, "the colours are off"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="centred"),
        pytest.param({"augment": "train", "frames": 5}, id="augmented"),
        pytest.param({"augment": "train", "options": {"clips_per_sample": 2}}, id="two windows of a read"),
        pytest.param({"frames": 4, "options": {"views": (2, 3)}}, id="views"),
    ],
)
def test_the_device_decodes_what_the_cpu_decodes(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, settings: dict[str, object]
) -> None:
    theirs = batches(codec_shards[codec], cuda, "cpu", **settings)
    ours = batches(codec_shards[codec], cuda, "gpu", **settings)
    check_alike(codec, ours, theirs)
    if cuda.type == "cuda":  # nothing was left to the CPU
        assert not all(torch.equal(a.video, b.video) for a, b in zip(ours, theirs, strict=True))


def test_data_sets_of_several_codecs_are_mixed(
    codec_shards: dict[str, Path], motion_shards: Path, cuda: torch.device, codec: str
) -> None:
    both = [codec_shards[codec], motion_shards]
    settings = {"frames": 8, "stride": None}
    check_alike(codec, batches(both, cuda, "gpu", **settings), batches(both, cuda, "cpu", **settings))


def test_resuming_is_exact(codec_shards: dict[str, Path], cuda: torch.device, codec: str) -> None:
    """Also in batches of another size: what decodes a picture doesn't depend on its place in one."""
    settings = {"frames": 8, "size": 48, "augment": "train", "seed": 7, "backend": "dali", "device": cuda}
    settings |= {"dtype": "bfloat16", "options": LoaderOptions(decode="gpu")}
    with vidpipe.Loader(codec_shards[codec], batch_size=5, **settings) as loader:
        states, expected = [], []
        for batch in loader:
            expected.append(batch)
            states.append(loader.state_dict())
    for batch_size in (5, 8):
        with vidpipe.Loader(codec_shards[codec], batch_size=batch_size, **settings) as loader:
            loader.load_state_dict(states[2])
            again = list(loader)
        assert [key for batch in again for key in batch.key] == [key for batch in expected[3:] for key in batch.key]
        assert torch.equal(torch.cat([b.video for b in again]), torch.cat([b.video for b in expected[3:]]))


def test_the_doctor_measures_the_decoder_that_decodes(
    codec_shards: dict[str, Path], true_cuda: torch.device, codec: str, vidpipe: RunCommand
) -> None:
    result = vidpipe("doctor", codec_shards[codec], "--size", 48, "--frames", 8, "--seconds", 0.2, "--json")
    assert result.code == 0, result.err
    rates = {stage["name"]: stage["clips_per_second"] for stage in json.loads(result.out)["stages"]}
    decoding = "decoding and augmentation" if codec == "jpeg" else "decoding"  # by default `mp4` is left to the CPU
    assert rates[decoding] > 0 and len({"decoding", "decoding and augmentation"} & rates.keys()) == 1


@pytest.mark.parametrize("megabytes", [600, 200])
def test_where_memory_is_short_no_picture_is_another(
    codec_shards: dict[str, Path], true_cuda: torch.device, megabytes: int
) -> None:
    """Either there is an error, or all is as ever."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("other tests use the device at the same time")
    expected = batches(codec_shards["jpeg"], true_cuda, "cpu")
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(true_cuda)
    taken = torch.empty(max(0, free - (megabytes << 20)), dtype=torch.uint8, device=true_cuda)
    try:
        ours = batches(codec_shards["jpeg"], true_cuda, "gpu")
    except (VidpipeError, RuntimeError):
        return
    finally:
        del taken
        torch.cuda.empty_cache()
    check_alike("jpeg", ours, expected)


@pytest.mark.parametrize("check", ["crc", "off"])
def test_a_damaged_sample_in_the_middle(
    codec_shards: dict[str, Path], cuda: torch.device, codec: str, check: str, tmp_path: Path
) -> None:
    """Named, or passed over as when the CPU decodes; the batches after it are decoded on the device again."""
    damage = copied(codec_shards[codec] / "train", tmp_path, sample=11)
    damage.overwrite(garbage)
    with pytest.raises(BadSampleError, match=f"sample {damage.key}: ") as caught:
        batches(damage.folder, cuda, "gpu", options={"check": check})
    assert caught.value.key == damage.key
    skip = {"check": check, "on_bad": "skip", "max_bad": 0.5}
    theirs = batches(damage.folder, cuda, "cpu", augment="train", options=skip)
    ours = batches(damage.folder, cuda, "gpu", augment="train", options=skip)
    check_alike(codec, ours, theirs)
    assert damage.key not in {key for batch in ours for key in batch.key}
