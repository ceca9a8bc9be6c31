"""Decoding of JPEG by DALI instead of by the threads: here on the CPU, where it has the same decoder."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from loader.damage import copied, garbage

import vidpipe
from vidpipe.errors import BadSampleError, ShardError, UsageError
from vidpipe.loader.augmentation.affine import Affine
from vidpipe.loader.augmentation.color import ColorJitter
from vidpipe.loader.reading.stored import Stored
from vidpipe.loader.sampling.place import Spot
from vidpipe.loader.transfer import SideStream
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
from vidpipe.loader.engines import dali_decoder

pytestmark = pytest.mark.timeout(240)  # with the making of the shards, on a machine that is busy

COLOR = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
AFFINE = Affine(rotation=30, shear=10, translation=0.1, scale=(0.5, 1.25), prob=0.7)


@pytest.fixture(scope="module")
def jpeg_shards(
    videos_dir: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> Path:
    """Real clips of several sizes."""
    out = tmp_path_factory.mktemp("jpeg") / "shards"
    options = ("--max-rejects", "20%", "--frames", 16, "--stride", 2, "--clips", 1, "--codec", "jpeg")
    source = ("--source", videos_dir, "--set", "annotations=labels.csv")
    assert session_command("prep", "csv", *source, "--out", out, *options, "--split", "train") == 0
    return out / "train"


@pytest.fixture
def by_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders with backend DALI leave JPEG to it, as they do on a GPU."""
    monkeypatch.setattr(
        "vidpipe.loader.engines.backend.device_codecs", lambda decode, backend, device: frozenset({"jpeg"})
    )


def batches(shards: object, **settings: object) -> list[vidpipe.Batch]:
    with vidpipe.Loader(shards, size=48, backend="dali", seed=3, **settings) as loader:
        return [batch for _ in range(2) for batch in loader]


def same(ours: Sequence[vidpipe.Batch], theirs: Sequence[vidpipe.Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.key == b.key and torch.equal(a.video, b.video) and torch.equal(a.is_padding, b.is_padding)
        for a, b in zip(ours, theirs, strict=True)
    )


def alike(ours: Sequence[vidpipe.Batch], theirs: Sequence[vidpipe.Batch]) -> bool:
    """The same but for what has colours of the outermost lines of a frame, which stands in a filmstrip with others."""
    differences = torch.cat([(a.video - b.video).abs() for a, b in zip(ours, theirs, strict=True)])
    return (
        [batch.key for batch in ours] == [batch.key for batch in theirs]
        and all(torch.equal(a.is_padding, b.is_padding) for a, b in zip(ours, theirs, strict=True))
        and bool((differences == 0).float().mean() > 0.9 and differences.mean() < 0.002)
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"batch_size": 3, "frames": 5, "augment": "train"}, id="clips of several sizes"),
        pytest.param(
            {"batch_size": 4, "frames": 5, "augment": "train"}
            | {"options": vidpipe.LoaderOptions(color_jitter=COLOR, affine=AFFINE, clips_per_sample=2)},
            id="several windows of one read",
        ),
        pytest.param(
            {"batch_size": 7, "frames": 4, "options": vidpipe.LoaderOptions(views=(2, 3))}, id="views of one read"
        ),
    ],
)
def test_the_same_clips_come_whoever_decodes(
    jpeg_shards: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    decoded = []
    whole = dali_decoder.DeviceDecoder.decode
    monkeypatch.setattr(
        dali_decoder.DeviceDecoder, "decode", lambda self, samples: decoded.extend(samples) or whole(self, samples)
    )
    expected = batches(jpeg_shards, **settings)
    assert not decoded
    request.getfixturevalue("by_dali")
    assert alike(batches(jpeg_shards, **settings), expected)
    assert len(decoded) >= 14


def test_data_sets_with_several_codecs_are_mixed(
    jpeg_shards: Path, real_shards: Path, request: pytest.FixtureRequest
) -> None:
    both = [jpeg_shards, real_shards / "train"]
    expected = batches(both, batch_size=4, frames=5, augment="train")
    request.getfixturevalue("by_dali")
    assert alike(batches(both, batch_size=4, frames=5, augment="train"), expected)


@pytest.mark.usefixtures("by_dali")
def test_all_that_dali_makes_is_kept_until_the_device_has_read_it(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[object] = []
    monkeypatch.setattr(SideStream, "keep", lambda self, memory: kept.append(memory))
    given = batches(jpeg_shards, batch_size=3, frames=5)
    tried = 1  # when the decoder is made
    assert len(kept) == tried + 2 * len(given) and {type(memory).__name__ for memory in kept} == {"TensorListCPU"}


@pytest.mark.usefixtures("by_dali")
def test_frames_arrive_before_the_batch_in_front_of_them_is_asked_for(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Semaphore(0)
    whole = dali_decoder.DeviceDecoder.decode

    def decode(self: dali_decoder.DeviceDecoder, samples: Sequence[Stored]) -> list[torch.Tensor]:
        videos = whole(self, samples)
        arrived.release()
        return videos

    with vidpipe.Loader(jpeg_shards, size=48, backend="dali", batch_size=3) as loader:
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", decode)
        started = [loader._workers.engine.start(loader._requests(Spot(0, consumed))) for consumed in (0, 3)]
        assert all(arrived.acquire(timeout=60) for _ in started)
        assert [loader._workers.engine.finish(one, lambda _, video: len(video)).value for one in started] == [3, 3]


@pytest.mark.usefixtures("by_dali")
def test_views_of_a_video_dont_depend_on_which_others_are_in_their_batch(jpeg_shards: Path) -> None:
    def clips(batch_size: int) -> dict[tuple[str, int], torch.Tensor]:
        options = vidpipe.LoaderOptions(views=(3, 1))
        made = batches(jpeg_shards, batch_size=batch_size, frames=4, options=options)
        return {
            (key, int(view)): video
            for batch in made
            for key, view, video in zip(batch.key, batch.view, batch.video, strict=True)
        }

    few, many = clips(2), clips(7)
    assert few.keys() == many.keys() and all(torch.equal(video, many[name]) for name, video in few.items())


@pytest.mark.usefixtures("by_dali")
def test_resuming_is_exact(jpeg_shards: Path) -> None:
    expected = batches(jpeg_shards, batch_size=2, augment="train")
    with vidpipe.Loader(jpeg_shards, size=48, backend="dali", seed=3, batch_size=2, augment="train") as loader:
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        state = loader.state_dict()
    with vidpipe.Loader(jpeg_shards, size=48, backend="dali", seed=3, batch_size=2, augment="train") as loader:
        loader.load_state_dict(state)
        assert same([*loader, *loader], expected[3:])


def another_size(content: bytes) -> bytes:
    """A small picture in the place of the first one."""
    small = make_codec(CodecSpec(name="jpeg")).encode(np.zeros((1, 16, 16, 3), np.uint8)).members[0].pieces[0]
    return bytes(small) + content[len(small) :]


def without_end(content: bytes) -> bytes:
    """The first picture's last two bytes are gone."""
    return content.replace(b"\xff\xd9", b"\0\0", 1)


def without_table(content: bytes) -> bytes:
    """Pictures whose headers can be read, but name a quantisation table that isn't there."""
    changed = bytearray(content)
    for start_of_frame in re.finditer(b"\xff\xc0", content):
        changed[start_of_frame.start() + 12] = 3
    return bytes(changed)


@pytest.mark.parametrize("change", [garbage, another_size, without_end, without_table])
def test_what_cannot_be_decoded_is_named(
    jpeg_shards: Path, tmp_path: Path, by_dali: None, change: Callable[[bytes], bytes]
) -> None:
    damage = copied(jpeg_shards, tmp_path, sample=2)
    damage.overwrite(change)
    with pytest.raises(BadSampleError, match=f"sample {damage.key}: can't be decoded") as caught:
        batches(damage.folder, batch_size=3, options=vidpipe.LoaderOptions(check="off"))
    assert caught.value.key == damage.key


@pytest.mark.parametrize(
    ("check", "change", "reaches_dali"),
    [
        ("crc", garbage, False),
        # DALI is never to see these: nvImageCodec crashes now and then on what it can't parse.
        ("off", garbage, False),
        ("off", another_size, False),
        ("off", without_end, False),
        ("off", without_table, True),
    ],
)
def test_what_cannot_be_decoded_is_passed_over_as_on_the_cpu(
    jpeg_shards: Path,
    tmp_path: Path,
    check: Literal["crc", "off"],
    change: Callable[[bytes], bytes],
    reaches_dali: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    damage = copied(jpeg_shards, tmp_path, sample=2)
    damage.overwrite(change)
    options = vidpipe.LoaderOptions(check=check, on_bad="skip", max_bad=0.5)
    expected = batches(damage.folder, batch_size=3, augment="train", options=options)
    whole, refusals = dali_decoder.DeviceDecoder.decode, []

    def decode(self: dali_decoder.DeviceDecoder, samples: Sequence[Stored]) -> list[torch.Tensor]:
        try:
            return whole(self, samples)
        except ValueError as error:
            refusals.append(error)
            raise

    monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", decode)
    request.getfixturevalue("by_dali")
    ours = batches(damage.folder, batch_size=3, augment="train", options=options)
    assert alike(ours, expected) and damage.key not in {key for batch in ours for key in batch.key}
    assert bool(refusals) == reaches_dali


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "vidpipe.loader"]


def refuse(*_: object) -> None:
    raise ValueError("no such luck")


@pytest.mark.usefixtures("by_dali")
def test_a_decoder_that_fails_on_sound_samples_is_told_of_and_then_given_up(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = batches(jpeg_shards, batch_size=2)
    whole = dali_decoder.DeviceDecoder.decode
    for decode in ("gpu", "auto"):
        options = vidpipe.LoaderOptions(decode=decode)
        with (
            vidpipe.Loader(jpeg_shards, size=48, backend="dali", seed=3, batch_size=2, options=options) as loader,
            caplog.at_level(logging.WARNING, "vidpipe.loader"),
        ):
            monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", refuse)
            iterator = iter(loader)
            assert alike([next(iterator), next(iterator)], expected[:2])
            if decode == "gpu":
                with pytest.raises(ShardError, match=r"jpeg .* no such luck; 3 batches in a row: set decode='cpu'"):
                    next(iterator)
            else:
                left = [*iterator, *loader]
                assert alike(left, expected[2:]) and len(left) == 2 * len(loader) - 2
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", whole)
    said = warned(caplog)
    assert all("no such luck" in message for message in said)
    assert [message.endswith("this batch was decoded on the CPU") for message in said] == [True] * 4 + [False]
    assert said[-1].endswith("3 batches in a row: from now on they are decoded on the CPU")


@pytest.mark.usefixtures("by_dali")
def test_without_an_able_decoder_the_cpu_decodes_and_says_so(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = batches(jpeg_shards, batch_size=3)
    monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", refuse)
    with caplog.at_level(logging.WARNING, "vidpipe.loader"):
        assert alike(batches(jpeg_shards, batch_size=3), expected)
    assert warned(caplog) == ["jpeg can't be decoded on cpu: no such luck; decoding on the CPU"]
    with pytest.raises(UsageError, match=r"decode: jpeg can't be decoded .* no such luck; take decode='cpu'"):
        batches(jpeg_shards, options=vidpipe.LoaderOptions(decode="gpu"))


def test_a_gpu_that_is_not_asked_for_decodes_nothing(motion_shards: Path) -> None:
    with pytest.raises(UsageError, match="decode: got 'gpu' for batches on cpu; take device='cuda'"):
        vidpipe.Loader(motion_shards, options=vidpipe.LoaderOptions(decode="gpu"))
