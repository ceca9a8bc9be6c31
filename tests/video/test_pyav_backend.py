"""Packets that wanted frames don't need are left out, and the frames are the same bytes all the same."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import av
import av.logging
import numpy as np
import pytest
from video.numbered import HEIGHT, WIDTH, MakeVideo, ffmpeg_frames, numbered_frames

from vidpipe.errors import VideoError
from vidpipe.video.decode import extract_clips
from vidpipe.video.demux import captured_complaints
from vidpipe.video.packets import H264Restarts, Packet, index_frames, needed_packets
from vidpipe.video.spec import ClipSpec

H264 = ("-c:v", "libx264", "-preset", "medium", "-crf", "23", "-pix_fmt", "yuv420p")
STRUCTURES = {
    "one-gop.mp4": (*H264, "-g", "250", "-bf", "3"),
    "closed-gops.mp4": (*H264, "-x264-params", "keyint=24:min-keyint=24:scenecut=0:bframes=3"),
    "closed-gops-annexb.avi": (*H264, "-x264-params", "keyint=24:min-keyint=24:scenecut=0:bframes=0"),
    "open-gops.mkv": (*H264, "-x264-params", "keyint=24:min-keyint=24:scenecut=0:bframes=3:open-gop=1"),
    "no-b-frames.mp4": (*H264, "-g", "24", "-bf", "0"),
    "intra-refresh.mkv": (*H264, "-x264-params", "keyint=24:intra-refresh=1"),
    "interlaced.mp4": (*H264, "-x264-params", "keyint=24:interlaced=1:bframes=2"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "fast", "-x265-params", "log-level=error:keyint=24:pools=1:temporal-layers=3"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "24", "-b:v", "1M"),
}  # fmt: skip


def moving_frames(num_frames: int) -> np.ndarray:
    """Numbered frames under a drifting texture, so that every frame refers to others."""
    texture = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3))
    drift = np.stack([np.roll(texture, (number, 2 * number), axis=(0, 1)) for number in range(num_frames)])
    return np.clip(numbered_frames(num_frames).astype(int) - drift, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", STRUCTURES)
def test_frames_are_those_of_a_whole_decode(name: str, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video(name, *STRUCTURES[name], picture=moving_frames(100))
    reference = ffmpeg_frames(path, size=(WIDTH, HEIGHT))
    for spec in (
        ClipSpec(frames=8, stride=3, clips=3, jitter=True, height=HEIGHT),
        ClipSpec(frames=2, stride=1, clips=2, height=HEIGHT),
        ClipSpec(frames=16, sampling="uniform", height=HEIGHT),
    ):
        extraction = extract_clips(path, spec, key=name)
        assert extraction.decoder == "pyav"
        for clip in extraction.clips:
            np.testing.assert_array_equal(clip.video, reference[clip.frame_indices])


def test_damage_in_packets_that_are_not_needed_matters_only_when_strict(ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("x.mp4", *STRUCTURES["closed-gops.mp4"], picture=moving_frames(100))
    with av.open(str(path)) as container:
        places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[2:20]:  # the slices, but not the headers by which they are found
        data[position + 8 : position + size] = random.Random(1).randbytes(size - 8)
    path.write_bytes(data)
    late = ClipSpec(frames=4, stride=2, clips=1, height=HEIGHT)  # the middle, two groups of pictures behind the damage
    extract_clips(path, late, key="x")
    with pytest.raises(VideoError, match="ffmpeg stopped"):
        extract_clips(path, late, key="x", strict=True)


def test_a_cropped_size_is_decoded_once(ffmpeg_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ffmpeg_video("x.mp4", *STRUCTURES["one-gop.mp4"], picture=moving_frames(40))
    reference = ffmpeg_frames(path, size=(WIDTH, HEIGHT))
    monkeypatch.setattr("vidpipe.video.decode.decode_with_ffmpeg", _not_expected)
    for width, height in ((128, 128), (112, HEIGHT), (190, 96)):
        spec = ClipSpec(frames=8, stride=3, height=HEIGHT, crop=(width, height))
        clip = extract_clips(path, spec, key="x").clips[0]
        left, top = spec.crop_origin(WIDTH, HEIGHT)
        scaled = spec.scaled_size(WIDTH, HEIGHT)
        if scaled == (WIDTH, HEIGHT):
            expected = reference[clip.frame_indices, top : top + height, left : left + width]
            np.testing.assert_array_equal(clip.video, expected)
        assert clip.video.shape == (8, height, width, 3)


def _not_expected(*_: object, **__: object) -> bool:
    raise AssertionError("decoded by ffmpeg")


@pytest.mark.parametrize("strict", [False, True])
def test_a_lost_slice_is_damage_though_libav_conceals_it_in_silence(strict: bool, ffmpeg_video: MakeVideo) -> None:
    """One of the four slices of a picture in the middle, which others refer to, becomes filler."""
    path = ffmpeg_video("x.mp4", *H264, "-x264-params", "slices=4:bframes=0:keyint=60", picture=moving_frames(60))
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][30]
    assert place is not None
    data = bytearray(path.read_bytes())
    second = place + 4 + int.from_bytes(data[place : place + 4], "big") + 4
    assert data[second] & 31 == 1 and data[second] & 0x60
    data[second] = data[second] & 0x60 | 12
    path.write_bytes(data)
    for decoder in ("auto", "ffmpeg"):
        with pytest.raises(VideoError, match="corrupt"):
            extract_clips(path, ClipSpec(frames=16, stride=3, height=HEIGHT), key="x", decoder=decoder, strict=strict)


def test_complaints_are_listened_for_until_the_last_thread_has_no_need() -> None:
    before = av.logging.get_level()
    with ThreadPoolExecutor(1) as other, ExitStack() as listening:
        with captured_complaints():
            other.submit(listening.enter_context, captured_complaints()).result()
        assert av.logging.get_level() == av.logging.ERROR
        other.submit(listening.close).result()
    assert av.logging.get_level() == before


def test_needed_packets() -> None:
    """Frames 0 to 8 in packets I P B B, I P B B, P: a group of pictures from its restart to the last packet that is needed."""
    ticks = [0, 3, 1, 2, 4, 7, 5, 6, 8]
    packets = [Packet(t, 1, n in (0, 4), is_restart=n in (0, 4)) for n, t in enumerate(ticks)]
    index = index_frames(packets, container="mp4")
    assert needed_packets(index, [1]) == [range(3)]
    assert needed_packets(index, [3]) == [range(2)]
    assert needed_packets(index, [2, 5]) == [range(4), range(4, 7)]
    assert needed_packets(index, [8]) == [range(4, 9)]


def test_restarts_of_h264() -> None:
    """An IDR picture is one, unless it needs parameters or a configuration from before it, but after the beginning."""
    sps, pps, idr, other = b"\x67\x42", b"\x68\xce", b"\x65\x88\x84", b"\x41\x9a\x24"
    packets = [(sps, pps, idr), (other,), (idr,), (sps, pps, idr), (other, idr), (idr,)]
    for length in (0, 1, 2, 4):
        restarts = H264Restarts(b"" if length == 0 else bytes([1, 66, 0, 30, 0xFC | (length - 1)]))
        data = [
            b"".join((b"\0\0\1" if length == 0 else len(unit).to_bytes(length, "big")) + unit for unit in packet)
            for packet in packets
        ]
        assert [restarts.is_restart(packet, reconfigures=False) for packet in data] == [1, 0, 0, 1, 0, 0]
        assert not restarts.is_restart(data[0], reconfigures=True)
        alone = H264Restarts(b"" if length == 0 else bytes([1, 66, 0, 30, 0xFC | (length - 1)]))
        assert [alone.is_restart(packet, reconfigures=False) for packet in (data[2], data[1], data[5], b"")] == [
            1,
            0,
            1,
            0,
        ]
