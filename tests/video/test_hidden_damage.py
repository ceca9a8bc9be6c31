"""Damage that ffmpeg only mutters about, and cuts in files that don't say how long they are, are found; oddities are not taken for them."""

from __future__ import annotations

import io
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video.numbered import MakeVideo, copy_video, numbered_frames

from vidpipe.errors import VideoError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.probe import probe
from vidpipe.video.spec import ClipSpec

WHOLE = ClipSpec(frames=40, height=64)
FFV1 = ("-c:v", "ffv1", "-level", "3", "-slices", "4", "-slicecrc", "1")
MJPEG = ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p")
NOISE = np.random.default_rng(0).integers(-16, 17, (40, 128, 192, 1))
GRAINY = np.clip(numbered_frames(40) + NOISE, 0, 255).astype(
    np.uint8
)  # frames that take more bytes than what is around them


def rejection(path: Path, decoder: Decoder = "auto") -> VideoError:
    with pytest.raises(VideoError) as raised:
        extract_clips(path, WHOLE, key="k", decoder=decoder)
    return raised.value


@pytest.mark.parametrize("decoder", ["auto", "decord", "ffmpeg"])
@pytest.mark.parametrize(("name", "encoding"), [("x.mkv", FFV1), ("x.avi", MJPEG), ("x.gif", ())])
def test_damage_within_frames_that_their_decoders_conceal(
    name: str, encoding: tuple[str, ...], decoder: Decoder, ffmpeg_video: MakeVideo
) -> None:
    path = ffmpeg_video(name, *encoding, picture=GRAINY)
    extract_clips(path, WHOLE, key="k", decoder=decoder)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    begin = (packet.pos or 0) + packet.size // 8  # behind headers, and within the first slice
    data = bytearray(path.read_bytes())
    data[begin : begin + 200] = random.Random(1).randbytes(200)
    path.write_bytes(data)
    first, second = rejection(path, decoder), rejection(path, decoder)
    assert (first.reason, first.stage) == ("damaged", "decode")
    assert first.message == second.message


@pytest.mark.parametrize("decoder", ["auto", "ffmpeg"])
def test_what_mjpeg_decoders_complain_of_without_harm_is_no_damage(decoder: Decoder, tmp_path: Path) -> None:
    """Cameras put fields of their own before their pictures, and some leave out the end marker."""
    path = tmp_path / "camera.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuvj420p"
        for number, frame in enumerate(numbered_frames(40)):
            jpeg = io.BytesIO()
            Image.fromarray(frame).save(jpeg, "JPEG")
            content = jpeg.getvalue()
            packet = av.Packet(content[:2] + b"\xff\xe0\x00\x00" + content[2:-2])
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    extraction = extract_clips(path, WHOLE, key="k", decoder=decoder)
    assert extraction.info.num_frames == 40
    assert extraction.decoder == "ffmpeg", "else there is no complaint, and this tests nothing"


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("live.mkv", ("-c:v", "libx264", "-f", "matroska", "-live", "1")),
        ("live.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-f", "webm", "-live", "1")),
        ("x.ogv", ("-c:v", "libtheora", "-q:v", "5")),
        ("x.gif", ()),
    ],
)
def test_a_file_that_ends_within_a_frame_is_cut_short(
    name: str, encoding: tuple[str, ...], share: float, ffmpeg_video: MakeVideo
) -> None:
    """Though it doesn't say how long it is."""
    path = ffmpeg_video(name, *encoding, picture=GRAINY)
    assert extract_clips(path, WHOLE, key="k").info.num_frames == 40
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert rejection(path).reason == ("damaged" if name == "x.gif" else "truncated")


def test_a_first_key_frame_that_cannot_be_decoded_leaves_the_next_one_to_tell_of_turns(ffmpeg_video: MakeVideo) -> None:
    video = ffmpeg_video("x.mp4", "-c:v", "mjpeg")
    path = copy_video(video, "turned.mp4", before=("-display_rotation:v", "90"))
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.size)
    data = bytearray(path.read_bytes())
    data[packet.pos or 0 : (packet.pos or 0) + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    assert (probe(path).width, probe(path).height) == (128, 192)
    assert rejection(path).reason == "damaged"
