"""Decoding by DALI instead of by the threads: here on the CPU, where it has the same JPEG decoder, and VP9 instead of H.264."""

from __future__ import annotations

import io
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
from vidpipe.loader.affine import Affine
from vidpipe.loader.augment import Drawn
from vidpipe.loader.color import ColorJitter
from vidpipe.loader.engine import EngineSetup
from vidpipe.loader.place import Spot
from vidpipe.loader.pool import ReadPool
from vidpipe.loader.region import Region
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.loader.stored import DeviceDecoding, Stored
from vidpipe.loader.transfer import SideStream
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec, Frames
from vidpipe.shards.manifest import Normalization

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
from vidpipe.loader import dali, dali_decoder

pytestmark = pytest.mark.timeout(240)  # with the making of the shards, on a machine that is busy

COLOR = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
AFFINE = Affine(rotation=30, shear=10, translation=0.1, scale=(0.5, 1.25), prob=0.7)
FRAMES, SIDE = 30, 96


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
    monkeypatch.setattr("vidpipe.loader.backend.device_codecs", lambda decode, backend, device: frozenset({"jpeg"}))


def batches(shards: object, **settings: object) -> list[vidpipe.Batch]:
    with vidpipe.Loader(shards, size=48, backend="dali", seed=3, **settings) as loader:
        return [batch for _ in range(2) for batch in loader]


def same(ours: Sequence[vidpipe.Batch], theirs: Sequence[vidpipe.Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.key == b.key and torch.equal(a.video, b.video) and torch.equal(a.is_padding, b.is_padding)
        for a, b in zip(ours, theirs, strict=True)
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
    assert same(batches(jpeg_shards, **settings), expected)
    assert len(decoded) >= 14


def test_data_sets_with_several_codecs_are_mixed(
    jpeg_shards: Path, real_shards: Path, request: pytest.FixtureRequest
) -> None:
    both = [jpeg_shards, real_shards / "train"]
    expected = batches(both, batch_size=4, frames=5, augment="train")
    request.getfixturevalue("by_dali")
    assert same(batches(both, batch_size=4, frames=5, augment="train"), expected)


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
        started = [loader._engine.start(loader._requests(Spot(0, consumed))) for consumed in (0, 3)]
        assert all(arrived.acquire(timeout=60) for _ in started)
        assert [len(loader._engine.finish(one).video) for one in started] == [3, 3]


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
    assert same(ours, expected) and damage.key not in {key for batch in ours for key in batch.key}
    assert bool(refusals) == reaches_dali


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "vidpipe.loader"]


def refuse(*_: object) -> None:
    raise ValueError("no such luck")


@pytest.mark.usefixtures("by_dali")
def test_a_decoder_that_fails_on_sound_samples_is_told_of_and_then_given_up(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = batches(jpeg_shards, batch_size=3)
    with vidpipe.Loader(jpeg_shards, size=48, backend="dali", seed=3, batch_size=3) as loader:
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", refuse)
        with caplog.at_level(logging.WARNING, "vidpipe.loader"):
            iterator = iter(loader)
            assert same([next(iterator), next(iterator)], expected[:2])
            with pytest.raises(ShardError, match=r"jpeg .* no such luck; 3 batches in a row: set decode='cpu'"):
                next(iterator)
    assert ["no such luck" in message for message in warned(caplog)] == [True, True]


@pytest.mark.usefixtures("by_dali")
def test_without_an_able_decoder_the_cpu_decodes_and_says_so(
    jpeg_shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = batches(jpeg_shards, batch_size=3)
    monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", refuse)
    with caplog.at_level(logging.WARNING, "vidpipe.loader"):
        assert same(batches(jpeg_shards, batch_size=3), expected)
    assert warned(caplog) == ["jpeg can't be decoded on cpu: no such luck; decoding on the CPU"]
    with pytest.raises(UsageError, match=r"decode: jpeg can't be decoded .* no such luck; take decode='cpu'"):
        batches(jpeg_shards, options=vidpipe.LoaderOptions(decode="gpu"))


@pytest.mark.parametrize(
    ("decode", "message"),
    [("gpu", "decode: got 'gpu' for batches on cpu; take device='cuda'"), ("nvdec", "decode: got 'nvdec', expected")],
)
def test_what_cannot_be_had_is_refused(real_shards: Path, decode: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vidpipe.Loader(real_shards, options=vidpipe.LoaderOptions(decode=decode))


def moving_picture() -> Frames:
    """Soft colours that move by half a pixel a frame, darker in every frame."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE * 2 * np.pi
    waves = [np.sin(x + t / 15) + np.cos(y * c - t / 15) for t in range(FRAMES) for c in (1, 2, 3)]
    levels = np.array(waves).reshape(FRAMES, 3, SIDE, SIDE).transpose(0, 2, 3, 1) * 35
    return (levels + 150 - 2 * np.arange(FRAMES)[:, None, None, None]).astype(np.uint8)


def write_vp9(path: str, video: Frames, **_: object) -> None:
    """As `write_h264`: BT.709, limited range, key frames at fixed distances."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libvpx-vp9", rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *video.shape[1:3], "yuv420p", 12
        stream.options = {"lag-in-frames": "0", "auto-alt-ref": "0", "crf": "10", "b": "0", "cpu-used": "8"}
        for number, frame in enumerate(video):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    Path(path).write_bytes(file.getvalue())


class Videos:
    """Two videos in memory, the second cut to half of its bytes."""

    codecs = frozenset({"mp4"})

    def __init__(self) -> None:
        self.codec = make_codec(CodecSpec(name="mp4"))
        whole = bytes(self.codec.encode(moving_picture()).members[0].pieces[0])
        self.files = [whole, whole[: len(whole) // 2]]

    def codec_of(self, sample: int) -> str:
        return "mp4"

    def read(self, sample: int, frames: Sequence[int], out: Frames) -> Frames:
        video = out[: len(frames) * SIDE * SIDE * 3].reshape(len(frames), SIDE, SIDE, 3)
        try:
            self.codec.decode_parts([self.files[sample]], frames, video)
        except ValueError as error:
            raise BadSampleError("shard", f"{sample}", f"can't be decoded: {error}") from error
        return video

    def read_stored(self, sample: int, frames: Sequence[int]) -> Stored:
        return Stored("mp4", [memoryview(self.files[sample])], frames, (len(frames), SIDE, SIDE, 3))


@pytest.fixture
def videos(monkeypatch: pytest.MonkeyPatch) -> Videos:
    monkeypatch.setattr("vidpipe.shards.codecs.mp4.write_h264", write_vp9)
    return Videos()


def video_requests(*samples: int) -> list[Request]:
    takes = [
        Take([0, 5, 10, 15], Drawn(Region(0, 0, SIDE, SIDE)), 0),
        Take([3, 4, 29, 29], Drawn(Region(8, 16, 64, 72, flip=True)), 1),
    ]
    return [make_request(sample, takes, epoch=0, is_padding=False) for sample in samples]


def test_only_the_wanted_frames_of_a_video_come_in_the_right_colours(videos: Videos) -> None:
    """Of VP9 in BT.709, which DALI on the CPU takes for BT.601, as it takes H.264 on a GPU."""
    setup = EngineSetup(
        size=48,
        normalization=Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_batch_size=4,
        threads=1,
        warps=False,
        recolors=False,
    )
    pool = ReadPool(videos, threads=2, frame_bytes=lambda sample: SIDE * SIDE * 3)
    made = []
    for decoding in (None, DeviceDecoding(videos, frozenset({"mp4"}), num_frames=4)):
        engine = dali.DaliEngine(pool, setup, decoding)
        made.append(engine.finish(engine.start(video_requests(0, 0))))
        if decoding is not None:
            with pytest.raises(BadSampleError, match="sample 1: can't be decoded"):
                engine.finish(engine.start(video_requests(0, 1)))
            again = engine.finish(engine.start(video_requests(0, 0)))
            assert torch.equal(again.video, made[-1].video)
        engine.close()
    pool.close()
    ours, theirs = made[1].video * 255, made[0].video * 255
    assert made[1].requests == made[0].requests and ours.shape == (4, 3, 4, 48, 48)
    assert (ours - theirs).abs().max() < 4 and (ours - theirs).abs().mean() < 1


def test_a_decoder_with_other_pictures_or_only_one_size_is_refused(
    videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one that gives another frame than it was asked for, and one that can't mix sizes in a batch."""
    one_more = tuple(min(frame + 1, 23) for frame in dali_decoder._TRIED_FRAMES)
    whole = dali_decoder.DeviceDecoder.decode

    def decode(self: object, samples: Sequence[Stored]) -> list[torch.Tensor]:
        return whole(self, [Stored("mp4", sample.parts, one_more, sample.shape) for sample in samples])

    def one_size(self: object, samples: Sequence[Stored]) -> list[torch.Tensor]:
        if len({sample.shape for sample in samples}) > 1:
            raise ValueError("several sizes")
        return whole(self, samples)

    for wrong, message in ((decode, r"its pictures differ from the CPU's by up to \d+ levels"), (one_size, "several")):
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", wrong)
        with pytest.raises(ValueError, match=message):
            dali_decoder.DeviceDecoder(
                "mp4",
                device=torch.device("cpu"),
                threads=1,
                max_samples=1,
                max_frames=4,
                stream=SideStream(torch.device("cpu")),
            )
