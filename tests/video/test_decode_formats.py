"""Every format gives the right frames in the right colours, whoever decodes it.

Measured with decord2 3.4.0 (FFmpeg 8.1), ffmpeg 9.0 and PyAV 18.1: with the same swscale settings decord and PyAV give the
very bytes of the ffmpeg program (PSNR infinite) for every format here, so `SAME_DB` leaves room for other versions only. Bars of
known colours are off by at most 3 levels of 255 in good H.264.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from video.numbered import (
    HEIGHT,
    WIDTH,
    MakeVideo,
    color_error,
    ffmpeg_frames,
    numbered_frames,
    psnr,
    read_numbers,
)

from vidpipe.errors import VideoError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.ffmpeg import run_ffmpeg
from vidpipe.video.spec import ClipSpec

ALL: tuple[Decoder, ...] = ("pyav", "decord", "ffmpeg")
SAME_DB = 45.0
COLOR_LEVELS = 8.0
SPEC = ClipSpec(frames=6, stride=3, clips=3, height=HEIGHT)
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-qp", "10")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:qp=10:pools=1")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M")
GOP = ("-g", "12", "-bf", "3", "-x264-params", "open-gop=1:b-pyramid=normal:scenecut=0")
FORMATS = {
    "h264.mp4": (*H264, "-pix_fmt", "yuv420p"),
    "b-frames.mp4": (*H264, *GOP, "-pix_fmt", "yuv420p"),
    "b-frames.mkv": (*H264, *GOP, "-pix_fmt", "yuv420p"),
    "b-frames.avi": (*H264, *GOP, "-pix_fmt", "yuv420p"),
    "intra.mp4": (*H264, "-g", "1", "-pix_fmt", "yuv420p"),
    "444.mp4": (*H264, "-pix_fmt", "yuv444p"),
    "422.mp4": (*H264, "-pix_fmt", "yuv422p"),
    "rgb.mp4": ("-c:v", "libx264rgb", "-qp", "10"),
    "10bit.mkv": (*H264, "-pix_fmt", "yuv420p10le"),
    "fragmented.mp4": (*H264, "-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov"),
    "hevc.mp4": (*X265, "-pix_fmt", "yuv420p"),
    "hevc-10bit.mp4": (*X265, "-pix_fmt", "yuv420p10le"),
    "hevc-12bit.mp4": (*X265, "-pix_fmt", "yuv420p12le"),
    "hevc-444-12bit.mkv": (*X265, "-pix_fmt", "yuv444p12le"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"),
    "vp9.webm": VP9,
    "vp9-10bit.webm": (*VP9, "-pix_fmt", "yuv420p10le"),
    "vp9-12bit.webm": (*VP9, "-pix_fmt", "yuv420p12le"),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "20", "-threads", "1"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
    "xvid.avi": ("-c:v", "libxvid", "-q:v", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2"),
    "prores.mov": ("-c:v", "prores_ks"),
    "ffv1-12bit.mkv": ("-c:v", "ffv1", "-pix_fmt", "yuv420p12le"),
    "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "palette.avi": ("-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse", "-c:v", "rawvideo", "-pix_fmt", "pal8"),
}
FFMPEG_ONLY = {  # their packets don't tell the frames, or decord loses the first ones
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2"),
    "h264.ts": (*H264, *GOP, "-pix_fmt", "yuv420p"),
    "flv1.flv": ("-c:v", "flv", "-q:v", "2"),
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "2"),
    "theora.ogv": ("-c:v", "libtheora", "-q:v", "10"),
    "elementary.h264": (*H264, "-pix_fmt", "yuv420p"),
}


def check_frames(path: Path, *, decoder: Decoder, strict: bool = False, stream: str = "0:v:0") -> None:
    """The clips of a video of 40 numbered frames are what they say, and what the ffmpeg program gives."""
    extraction = extract_clips(path, SPEC, key="k", decoder=decoder, strict=strict)
    info = extraction.info
    assert info.num_frames == 40
    assert info.promised_frames == (None if path.suffix == ".h264" else 40)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.fps == pytest.approx(25, rel=0.001)
    reference = ffmpeg_frames(path, size=(WIDTH, HEIGHT), stream=stream)
    for clip, start in zip(extraction.clips, (4, 12, 20), strict=True):
        assert clip.video.shape == (6, HEIGHT, WIDTH, 3)
        assert clip.video.flags.c_contiguous
        assert clip.frame_indices.tolist() == list(range(start, start + 18, 3)) == read_numbers(clip.video)
        np.testing.assert_allclose(clip.times_seconds, clip.frame_indices / 25, atol=0.001)
        assert clip.padded_frames == 0
        assert color_error(clip.video) <= COLOR_LEVELS
        assert psnr(clip.video, reference[clip.frame_indices]) >= SAME_DB


@pytest.mark.parametrize("name", FORMATS)
def test_format(name: str, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video(name, *FORMATS[name])
    check_frames(path, decoder="pyav")
    check_frames(path, decoder="decord")
    check_frames(path, decoder="ffmpeg", strict=True)
    extraction = extract_clips(path, SPEC, key="k")
    assert extraction.decoder == "pyav"
    wanted = dict(pairwise(FORMATS[name])).get("-pix_fmt")
    assert wanted in {None, extraction.info.pix_fmt}, "ffmpeg made another format"


@pytest.mark.parametrize("name", ["h264.mp4", "b-frames.mkv"])
def test_metadata_may_be_no_utf8(name: str, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video(name, *FORMATS[name], "-metadata", "title=Cafe", "-metadata:s:v:0", "handler_name=Cafe")
    content = path.read_bytes()
    assert b"Cafe" in content
    path.write_bytes(content.replace(b"Cafe", b"Caf\xe9"))
    check_frames(path, decoder="pyav")


@pytest.mark.parametrize("name", FFMPEG_ONLY)
def test_format_for_ffmpeg_alone(name: str, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video(name, *FFMPEG_ONLY[name])
    check_frames(path, decoder="auto")
    for asked in ("auto", "decord"):
        assert extract_clips(path, SPEC, key="k", decoder=asked).decoder == "ffmpeg"
    with pytest.raises(VideoError, match="pyav can't be used") as raised:
        extract_clips(path, SPEC, key="k", decoder="pyav")
    assert (raised.value.reason, raised.value.stage) == ("unsupported", "decode")


def test_ffmpeg_decodes_what_decord_lacks_unless_it_is_damaged(
    ffmpeg_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ffmpeg_video("h264.mp4", *FORMATS["h264.mp4"])
    monkeypatch.setattr("vidpipe.video.decord_backend.can_decode", lambda codec: codec != "h264")
    extraction = extract_clips(path, SPEC, key="k", decoder="decord")
    assert extraction.decoder == "ffmpeg"
    assert read_numbers(extraction.clips[0].video) == extraction.clips[0].frame_indices.tolist()
    for damaged in (path, ffmpeg_video("mpeg2.mpg", *FFMPEG_ONLY["mpeg2.mpg"])):
        content = damaged.read_bytes()
        middle = len(content) // 2
        damaged.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])
        with pytest.raises(VideoError) as raised:
            extract_clips(damaged, SPEC, key="k", decoder="decord", strict=True)
        assert raised.value.reason in {"damaged", "truncated"}


@pytest.mark.parametrize("decoder", ALL)
def test_odd_sizes_crop_and_narrow_clips(decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("odd.mp4", *H264, "-pix_fmt", "yuv444p", picture=numbered_frames(40, 191, 127))
    reference = ffmpeg_frames(path, size=(192, 128))
    for spec in (
        ClipSpec(frames=4, height=128),
        ClipSpec(frames=4, height=32),
        ClipSpec(frames=4, crop=(128, 128)),
        ClipSpec(frames=4, crop=(192, 96)),
    ):
        (clip,) = extract_clips(path, spec, key="k", decoder=decoder).clips
        width, height = spec.output_size(191, 127)
        assert clip.video.shape == (4, height, width, 3)
        if spec.crop is not None:
            left, top = spec.crop_origin(191, 127)
            cropped = reference[clip.frame_indices][:, top : top + height, left : left + width]
            assert psnr(clip.video, cropped) >= SAME_DB
        else:
            assert read_numbers(clip.video) == clip.frame_indices.tolist()


@pytest.mark.parametrize("decoder", ALL)
def test_variable_rate_by_presentation_time(decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    # Frames 0 to 19 of 25 fps, then every fifth one: 20, 25, 30, 35.
    keep = ("-vf", "select='lt(n,20)+not(mod(n,5))'", "-fps_mode", "vfr")
    spec = ClipSpec(frames=8, sampling="fps", fps=6.25, height=HEIGHT)
    for name in ("vfr.mp4", "vfr.mkv"):
        path = ffmpeg_video(name, *keep, *H264, "-pix_fmt", "yuv420p")
        extraction = extract_clips(path, spec, key="k", decoder=decoder)
        (clip,) = extraction.clips
        assert extraction.info.promised_frames == 24
        numbers = read_numbers(clip.video)
        shown = [*range(20), 20, 25, 30, 35]
        targets = numbers[0] / 25 + np.arange(8) / 6.25
        assert numbers == [max(n for n in shown if n / 25 <= target + 0.002) for target in targets]
        assert numbers[-1] > 20  # the part with the low rate is reached
        np.testing.assert_allclose(clip.times_seconds, np.array(numbers) / 25, atol=0.002)


@pytest.mark.parametrize("decoder", ALL)
def test_a_start_that_is_not_zero(decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("late.mkv", "-output_ts_offset", "5", *H264, "-pix_fmt", "yuv420p")
    extraction = extract_clips(path, SPEC, key="k", decoder=decoder)
    assert extraction.info.start_seconds == pytest.approx(5, abs=0.001)
    assert extraction.info.duration_seconds == pytest.approx(1.6, abs=0.002)
    clip = extraction.clips[0]
    assert read_numbers(clip.video) == clip.frame_indices.tolist()
    np.testing.assert_allclose(clip.times_seconds, clip.frame_indices / 25, atol=0.001)


@pytest.mark.parametrize("decoder", ALL)
def test_frames_outside_an_edit_list_are_not_shown(decoder: Decoder, ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    whole = ffmpeg_video("whole.mp4", *H264, *GOP, "-pix_fmt", "yuv420p")
    cut = tmp_path / "cut.mp4"
    run_ffmpeg(["-v", "error", "-ss", "0.6", "-i", str(whole), "-c", "copy", str(cut)], timeout_seconds=60)
    extraction = extract_clips(cut, SPEC, key="k", decoder=decoder)
    first = read_numbers(extract_clips(cut, ClipSpec(frames=1, clips=40), key="k").clips[0].video)[0]
    assert first in {14, 15}
    assert extraction.info.num_frames == extraction.info.promised_frames == 40 - first
    for clip in extraction.clips:
        assert read_numbers(clip.video) == (clip.frame_indices + first).tolist()


@pytest.mark.parametrize("decoder", ALL)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_few_frames_are_padded(num_frames: int, decoder: Decoder, ffmpeg_video: MakeVideo) -> None:
    path = ffmpeg_video("short.mp4", *H264, "-pix_fmt", "yuv420p", frames=num_frames)
    for spec in (ClipSpec(frames=5), ClipSpec(frames=5, sampling="uniform", clips=2)):
        extraction = extract_clips(path, spec, key="k", decoder=decoder)
        for clip in extraction.clips:
            assert read_numbers(clip.video) == clip.frame_indices.tolist()
            assert clip.padded_frames == 5 - num_frames


@pytest.mark.parametrize("decoder", ALL)
def test_the_stream_that_ffmpeg_calls_best_is_decoded(
    decoder: Decoder, ffmpeg_video: MakeVideo, tmp_path: Path
) -> None:
    small = ffmpeg_video("small.mp4", "-c:v", "mpeg4", picture=numbered_frames(40, 32, 32))
    large = ffmpeg_video("large.mp4", *H264, "-pix_fmt", "yuv420p")
    both = tmp_path / "both.mkv"
    inputs = ["-i", str(small), "-i", str(large), "-map", "0", "-map", "1"]
    best = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    run_ffmpeg(["-v", "error", *inputs, "-c", "copy", *best, str(both)], timeout_seconds=60)
    extraction = extract_clips(both, SPEC, key="k", decoder=decoder)
    assert (extraction.info.stream_index, extraction.info.width) == (1, WIDTH)
    assert read_numbers(extraction.clips[2].video) == extraction.clips[2].frame_indices.tolist()


@pytest.mark.parametrize("decoder", ALL)
def test_a_picture_that_changes_its_size(decoder: Decoder, ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    parts = [
        ffmpeg_video(f"{i}.h264", *H264, "-bf", "0", "-pix_fmt", "yuv420p", frames=20, picture=frames)
        for i, frames in enumerate((numbered_frames(40)[:20], numbered_frames(40, 160, 96)[20:]))
    ]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    path = tmp_path / "joined.mkv"
    run_ffmpeg(["-v", "error", "-fflags", "+genpts", "-i", str(joined), "-c", "copy", str(path)], timeout_seconds=60)
    for clip in extract_clips(path, SPEC, key="k", decoder=decoder).clips:
        assert read_numbers(clip.video) == clip.frame_indices.tolist()


def test_overlapping_clips_and_many_scattered_frames(ffmpeg_video: MakeVideo) -> None:
    """The numbers of the last case begin anew at 256; its frames are too many for one of ffmpeg's expressions."""
    path = ffmpeg_video("x.mp4", *H264, *GOP, "-pix_fmt", "yuv420p", picture=numbered_frames(2000, 64, 32))
    for spec in (
        ClipSpec(frames=16, stride=2, clips=60, height=32, jitter=True),
        ClipSpec(frames=1, clips=1200, height=32, jitter=True),
    ):
        for decoder in ALL:
            for clip in extract_clips(path, spec, key="k", decoder=decoder).clips:
                assert read_numbers(clip.video) == (clip.frame_indices % 256).tolist()


def test_sound_that_begins_late_and_ends_early_is_no_matter(ffmpeg_video: MakeVideo) -> None:
    """Program streams don't announce theirs, so that it is new to whoever looked at the file's beginning and end."""
    noise = np.random.default_rng(0).integers(-16, 17, (500, HEIGHT, WIDTH, 1))
    picture = np.clip(numbered_frames(500) + noise, 0, 255).astype(np.uint8)
    sound = ("-itsoffset", "10", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "mp2")
    path = ffmpeg_video("late.vob", "-c:v", "mpeg2video", "-q:v", "3", picture=picture, before_output=sound)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"], "else this tests nothing"
    assert extract_clips(path, SPEC, key="k").info.num_frames == 500
