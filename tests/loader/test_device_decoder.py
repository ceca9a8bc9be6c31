"""The decoder of a device by itself, of videos: here DALI's on the CPU, with VP9 instead of H.264."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from loader.pictures import soft_colors

import vidpipe
from vidpipe.errors import BadSampleError
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.augmentation.region import Region
from vidpipe.loader.engines.engine import EngineSetup
from vidpipe.loader.reading.pool import ReadPool
from vidpipe.loader.reading.stored import Stored, as_stored
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.loader.transfer import SideStream
from vidpipe.shards.codecs import make_codec
from vidpipe.shards.codecs.base import CodecSpec, Frames
from vidpipe.shards.manifest import Normalization

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
from vidpipe.loader.engines import dali, dali_decoder

FRAMES, SIDE = 30, 96


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

    def stored_bytes(self, sample: int, frames: Sequence[int]) -> int:
        return len(self.files[sample])

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
        num_frames=4,
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

    def served(requests: Sequence[Request], video: torch.Tensor) -> tuple[Sequence[Request], torch.Tensor]:
        return requests, video

    made = []
    for decodes in (frozenset[str](), frozenset({"mp4"})):
        engine = dali.DaliEngine(pool, setup, decodes)
        made.append(engine.finish(engine.start(video_requests(0, 0)), served).value)
        if decodes:
            with pytest.raises(BadSampleError, match="sample 1: can't be decoded"):
                engine.finish(engine.start(video_requests(0, 1)), served)
            again = engine.finish(engine.start(video_requests(0, 0)), served).value
            assert torch.equal(again[1], made[-1][1])
        engine.close()
    pool.close()
    ours, theirs = made[1][1] * 255, made[0][1] * 255
    assert made[1][0] == made[0][0] and ours.shape == (4, 3, 4, 48, 48)
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
            make_decoder("mp4", max_samples=1, max_frames=4)


def make_decoder(codec: str, *, max_samples: int, max_frames: int) -> dali_decoder.DeviceDecoder:
    cpu = torch.device("cpu")
    return dali_decoder.DeviceDecoder(
        codec, device=cpu, threads=2, max_samples=max_samples, max_frames=max_frames, stream=SideStream(cpu)
    )


def test_a_decoder_that_leaves_memory_as_it_was_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold what another decoder was tried with; or some pictures of a batch are decoded, and others aren't."""
    whole = dali_decoder.DeviceDecoder._decoded
    made: list[torch.Tensor] = []

    def nothing_new(self: object, *what: object) -> torch.Tensor:
        made.append(whole(self, *what))
        return made[0].clone()

    def only_four(self: object, encoded: Sequence[memoryview], shapes: Sequence[tuple[int, ...]]) -> torch.Tensor:
        levels = whole(self, encoded, shapes)
        levels[sum(math.prod(shape) for shape in shapes[:4]) :] = 0
        return levels

    for wrong, tries in ((nothing_new, 1), (only_four, 0)):
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "_decoded", wrong)
        for _ in range(tries):
            make_decoder("jpeg", max_samples=5, max_frames=20).close()
        with pytest.raises(ValueError, match=r"its pictures differ from the CPU's by up to \d+ levels"):
            make_decoder("jpeg", max_samples=5, max_frames=20)


def test_one_that_is_made_anew_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI calls a pipeline that has met damage no longer valid."""
    video = soft_colors(4, 96, 80)
    files = [memoryview(b"".join(m.pieces)) for m in make_codec(CodecSpec(name="jpeg")).encode(video).members]
    sound = as_stored("jpeg", files, range(4), video.shape)
    damaged = as_stored("jpeg", [memoryview(b"no picture")] * 4, range(4), video.shape, join=False)
    decoder = make_decoder("jpeg", max_samples=2, max_frames=8)
    (expected,) = decoder.decode([sound])
    for wrong in (False, True):
        with pytest.raises(ValueError, match=r"\S"):
            decoder.decode([damaged])
        if wrong:
            monkeypatch.setattr(
                dali_decoder.DeviceDecoder, "_decoded", lambda self, _, shapes: torch.zeros(sum(map(math.prod, shapes)))
            )
            for _ in range(2):
                with pytest.raises(ValueError, match="its pictures differ"):
                    decoder.decode([sound])
        else:
            assert torch.equal(decoder.decode([sound])[0], expected)
    decoder.close()


def test_of_several_decoders_only_the_one_that_fails_is_given_up(
    codec_shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, make = dali_decoder.DeviceDecoder.decode, dali_decoder.DeviceDecoder.__init__
    served = []

    def made(self: dali_decoder.DeviceDecoder, codec: str, **settings: object) -> None:
        make(self, "jpeg", **settings)  # of `mp4`, there is none without a GPU
        self._codec = codec

    def decode(self: dali_decoder.DeviceDecoder, samples: Sequence[Stored]) -> list[torch.Tensor]:
        if self._codec == "mp4":
            raise ValueError("no such luck")
        served.append(len(samples))
        return whole(self, samples)

    folders = [codec_shards["jpeg"] / "train", codec_shards["mp4"] / "train"]
    with vidpipe.Loader(folders, batch_size=12, size=48, backend="dali", seed=3) as loader:
        expected = list(loader)
    monkeypatch.setattr("vidpipe.loader.engines.backend.device_codecs", lambda *_: frozenset({"jpeg", "mp4"}))
    monkeypatch.setattr(dali_decoder.DeviceDecoder, "__init__", made)
    with vidpipe.Loader(folders, batch_size=12, size=48, backend="dali", seed=3) as loader:
        monkeypatch.setattr(dali_decoder.DeviceDecoder, "decode", decode)
        ours = list(loader)
    assert [batch.key for batch in ours] == [batch.key for batch in expected] and len(ours) == len(served) == 6
    assert [record.message.rpartition("no such luck")[2] for record in caplog.records] == [
        *["; this batch was decoded on the CPU"] * 2,
        "; 3 batches in a row: from now on they are decoded on the CPU",
    ]


def test_jpegs_of_all_heights_come_out_whole() -> None:
    """Also of those that aren't multiples of what JPEG codes together, several strips of a clip, and other tables in it."""
    sizes = [(12, 100, 64), (5, 96, 80), (9, 91, 48), (1, 300, 32)]
    samples, expected = [], []
    for frames, height, width in sizes:
        video = soft_colors(frames, height, width)
        half = frames // 2
        clips = [(video[:half], 95), (video[half:], 80)] if frames == 9 else [(video, 90)]
        files = [
            memoryview(b"".join(member.pieces))
            for clip, quality in clips
            for member in make_codec(CodecSpec(name="jpeg", quality=quality)).encode(clip).members
        ]
        alone = np.empty_like(video)
        make_codec(CodecSpec(name="jpeg")).decode_parts(files, range(frames), alone)
        samples.append(as_stored("jpeg", files, range(frames), video.shape))
        expected.append(alone)
    assert [len(sample.strips) for sample in samples] == [1, 1, 2, 1]
    decoder = make_decoder("jpeg", max_samples=4, max_frames=27)
    for order in ([0, 1, 2, 3], [1, 3], [1]):
        decoded = decoder.decode([samples[place] for place in order])
        for place, video in zip(order, decoded, strict=True):
            assert video.shape == expected[place].shape
            assert np.array_equal(video[:, 1:-1].numpy(), expected[place][:, 1:-1])
    decoder.close()
