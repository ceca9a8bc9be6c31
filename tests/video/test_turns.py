"""Turns and crops that a container or a stream asks for: which are followed, and which no decoder follows."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from video.numbered import (
    HEIGHT,
    WIDTH,
    MakeVideo,
    color_error,
    copy_video,
    ffmpeg_frames,
    numbered_frames,
    read_numbers,
)

from vidpipe.errors import VideoError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.ffmpeg import run_ffmpeg
from vidpipe.video.probe import probe
from vidpipe.video.spec import ClipSpec

ALL: tuple[Decoder, ...] = ("pyav", "decord", "ffmpeg")
COLOR_LEVELS = 8.0
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-qp", "10")
SPEC = ClipSpec(frames=6, stride=3, clips=3, height=HEIGHT)


@pytest.mark.parametrize("decoder", ALL)
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("container", ["mov", "mkv"])
def test_rotation(container: str, rotation: int, decoder: Decoder, ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    stored = np.rot90(numbered_frames(40), k=rotation // 90, axes=(1, 2)).copy()
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p", picture=stored)
    turned = tmp_path / f"turned.{container}"
    run_ffmpeg(
        ["-v", "error", "-display_rotation", str(-rotation), "-i", str(plain), "-c", "copy", str(turned)],
        timeout_seconds=60,
    )
    extraction = extract_clips(turned, SPEC, key="k", decoder=decoder)
    assert extraction.info.rotation == rotation
    assert (extraction.info.width, extraction.info.height) == (WIDTH, HEIGHT)
    clip = extraction.clips[0]
    assert clip.video.shape[1:3] == (HEIGHT, WIDTH)
    assert read_numbers(clip.video) == clip.frame_indices.tolist()


def test_unusual_turns_go_to_ffmpeg(ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    """Mirroring is done; angles that are no right ones, and tags without a display matrix, are ignored."""
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p")
    mirrored = ffmpeg_video(
        "mirrored.mp4", *H264, "-pix_fmt", "yuv420p", picture=numbered_frames(40)[:, :, ::-1].copy()
    )
    cases = {
        "flip.mp4": (mirrored, ("-display_hflip",), ()),
        "30.mp4": (plain, ("-display_rotation", "30"), ()),
        "tag.mkv": (plain, (), ("-metadata:s:v:0", "rotate=90")),
    }
    for name, (source, before, after) in cases.items():
        path = tmp_path / name
        run_ffmpeg(["-v", "error", *before, "-i", str(source), "-c", "copy", *after, str(path)], timeout_seconds=60)
        extraction = extract_clips(path, SPEC, key="k")
        assert extraction.decoder == "ffmpeg"
        assert (extraction.info.width, extraction.info.height) == (WIDTH, HEIGHT)
        assert read_numbers(extraction.clips[0].video) == extraction.clips[0].frame_indices.tolist()


@pytest.mark.parametrize("turn", [("-display_rotation", "90"), ("-display_hflip",)], ids=["rotated", "mirrored"])
def test_a_cut_between_key_frames_keeps_the_turn(turn: tuple[str, ...], ffmpeg_video: MakeVideo) -> None:
    """An edit list leaves out the frame of the first key packet, so that a decoder doesn't give it."""
    whole = ffmpeg_video("whole.mp4", *H264, "-g", "12", "-pix_fmt", "yuv420p")
    cut = copy_video(copy_video(whole, "turned.mp4", before=turn), "cut.mp4", before=("-ss", "0.6"))
    size = (HEIGHT, WIDTH) if "-display_rotation" in turn else (WIDTH, HEIGHT)
    reference = ffmpeg_frames(cut, size=size)
    decoders: tuple[Decoder, ...] = ("auto", "decord", "ffmpeg")
    for decoder in decoders:
        extraction = extract_clips(cut, ClipSpec(frames=6, stride=3, height=min(size)), key="k", decoder=decoder)
        assert (extraction.info.width, extraction.info.height) == size
        assert extraction.info.num_frames == len(reference) < 40
        np.testing.assert_array_equal(extraction.clips[0].video, reference[extraction.clips[0].frame_indices])


def test_a_later_key_frame_tells_the_turn_where_the_first_is_damaged(ffmpeg_video: MakeVideo) -> None:
    whole = ffmpeg_video("whole.mp4", *H264, "-g", "20", "-bf", "0", "-pix_fmt", "yuv420p")
    path = copy_video(whole, "turned.mp4", before=("-display_rotation", "90"))
    with av.open(str(path)) as container:
        keys = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.is_keyframe]
    for number, (position, size) in enumerate(keys):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes(size))
        if number + 1 < len(keys):
            assert probe(path).rotation == 270
    with pytest.raises(VideoError, match="no key frame can be decoded") as raised:
        probe(path)
    assert (raised.value.reason, raised.value.stage) == ("damaged", "probe")


@pytest.mark.parametrize("degrees", [89.4, 89.7, 90.4, 180.3, 359.6])
def test_an_angle_is_right_where_ffmpeg_takes_it_for_right(degrees: float, ffmpeg_video: MakeVideo) -> None:
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p", frames=4)
    path = copy_video(plain, "turned.mp4", before=("-display_rotation", str(degrees)))
    nearest = round(degrees) % 360
    is_right = nearest % 90 == 0
    info = probe(path)
    assert (info.rotation, info.ignored_angle) == ((-nearest % 360, 0) if is_right else (0, -nearest % 360))
    if is_right:
        reference = ffmpeg_frames(path, size=(info.width, info.height))
        extraction = extract_clips(path, ClipSpec(frames=4, height=min(info.width, info.height)), key="k")
        np.testing.assert_array_equal(extraction.clips[0].video, reference)


@pytest.mark.parametrize("columns", [(0, 3), (0, 1, 3, 4)], ids=["no width", "nothing"])
def test_a_matrix_that_leaves_no_picture_is_none(columns: tuple[int, ...], ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("x.mp4", *H264, "-pix_fmt", "yuv420p", frames=4)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # (a b u; c d v; x y w), 4 bytes each (ISO/IEC 14496-12, 8.3.2)
    for place in columns:
        data[matrix + 4 * place : matrix + 4 * place + 4] = bytes(4)
    path.write_bytes(data)
    info = probe(path)
    assert (info.width, info.height, info.rotation, info.mirrored) == (WIDTH, HEIGHT, 0, False)


def test_a_tagged_angle_that_is_no_number_is_none(ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("x.mkv", *H264, "-metadata:s:v:0", "rotate=inf", frames=4)
    assert probe(path).ignored_angle == 0


@pytest.mark.parametrize("box", [b"pnot", b"styp", b"????"])
def test_a_turn_behind_an_unusual_first_box_is_followed(box: bytes, ffmpeg_video: MakeVideo) -> None:
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p", frames=4)
    path = copy_video(plain, "turned.mov", before=("-display_rotation", "90"))
    data = path.read_bytes()
    ftyp = int.from_bytes(data[:4], "big")
    path.write_bytes(data[:4] + box + data[8:ftyp] + data[ftyp:])
    assert probe(path).rotation == 270


@pytest.mark.parametrize("decoder", ["auto", "decord", "ffmpeg"])
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_turns_that_the_stream_asks_for_are_left_out(container: str, decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    """Of the decoders here only ffmpeg would follow them."""
    asks = ("-bsf:v", "h264_metadata=display_orientation=insert:rotate=90")
    path = ffmpeg_video(f"x.{container}", *H264, "-pix_fmt", "yuv420p", *asks)
    for clip in extract_clips(path, SPEC, key="k", decoder=decoder).clips:
        assert clip.video.shape == (6, HEIGHT, WIDTH, 3)
        assert read_numbers(clip.video) == clip.frame_indices.tolist()


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_the_codecs_crop_is_followed_and_not_the_containers(decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    wide = np.pad(numbered_frames(40), ((0, 0), (10, 6), (20, 44), (0, 0)))
    crop = ("-bsf:v", "h264_metadata=crop_left=20:crop_right=44:crop_top=10:crop_bottom=6")
    path = ffmpeg_video("x.mp4", *H264, "-pix_fmt", "yuv420p", *crop, picture=wide)
    data = bytearray(path.read_bytes())
    clean_aperture = struct.pack(">I4s8i", 40, b"clap", 96, 1, 64, 1, 0, 1, 0, 1)
    for box in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.rindex(box) - 4
        size = int.from_bytes(data[at : at + 4], "big")
        if box == b"avc1":
            data[at + size : at + size] = clean_aperture
        data[at : at + 4] = (size + 40).to_bytes(4, "big")
    path.write_bytes(data)
    for clip in extract_clips(path, SPEC, key="k", decoder=decoder).clips:
        assert clip.video.shape == (6, HEIGHT, WIDTH, 3)
        assert read_numbers(clip.video) == clip.frame_indices.tolist()
        assert color_error(clip.video) <= COLOR_LEVELS
