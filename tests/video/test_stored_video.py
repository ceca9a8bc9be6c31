"""Whole videos, encoded again: every frame of the source is there, and any of them can be read alone."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from video.numbered import MakeVideo, color_error, ffmpeg_frames, psnr, read_numbers

from vidpipe.errors import VideoError
from vidpipe.video.ffmpeg import run_ffmpeg
from vidpipe.video.spec import ClipSpec
from vidpipe.video.stored_video import StoredVideo
from vidpipe.video.transcode import Transcoded, transcode_video

GOP = 12


def _transcoded(path: Path, **spec: object) -> Transcoded:
    return transcode_video(path, ClipSpec(height=64, **spec), crf=12, gop=GOP)


def _read(made: Transcoded, frames: list[int]) -> np.ndarray:
    width, height = made.size
    out = np.zeros((len(frames), height, width, 3), np.uint8)
    StoredVideo(made.content).read(frames, out)
    return out


@pytest.mark.parametrize(
    "encoding",
    [
        ("n.mp4", "-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p"),
        ("n.webm", "-c:v", "libvpx-vp9", "-b:v", "1M", "-cpu-used", "8"),
        ("n.avi", "-c:v", "mpeg4", "-q:v", "3"),
        ("n.mp4", "-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le"),
    ],
    ids=lambda encoding: encoding[2],
)
def test_every_frame_is_there_and_can_be_read_alone(ffmpeg_video: MakeVideo, encoding: tuple[str, ...]) -> None:
    made = _transcoded(ffmpeg_video(*encoding, frames=40))
    wanted = [39, 0, 11, 12, 13, 13, 30, 5, 24]
    video = _read(made, wanted)
    assert read_numbers(video) == wanted
    assert color_error(video) < 14
    assert read_numbers(_read(made, list(range(40)))) == list(range(40))
    assert np.allclose(made.times_seconds, np.arange(40) / 25, atol=0.002)
    assert [frame.shape for frame in StoredVideo(made.content).all(step=GOP)] == [(64, 96, 3)] * 4


def test_reading_takes_no_other_thread(ffmpeg_video: MakeVideo) -> None:
    """Each thread of a loader reads videos; ones of libav's beside them would hang a process that is forked meanwhile."""
    frames = StoredVideo(_transcoded(ffmpeg_video("n.mp4", "-c:v", "libx264", frames=4)).content).all(step=1)
    threads = Path("/proc/self/task")
    before = {thread.name for thread in threads.iterdir()}
    next(frames)
    assert {thread.name for thread in threads.iterdir()} == before


def test_key_frames_stand_at_fixed_distances_and_nothing_is_reordered(ffmpeg_video: MakeVideo) -> None:
    made = _transcoded(ffmpeg_video("n.mp4", "-c:v", "libx264", frames=40))
    with av.open(io.BytesIO(made.content)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 12, 24, 36]
    assert all(packet.pts == packet.dts for packet in packets)


def test_frames_look_as_the_source_does(videos_dir: Path) -> None:
    path = videos_dir / "arm_wrestling.mp4"
    made = transcode_video(path, ClipSpec(height=240), crf=16, gop=GOP)
    frames = list(range(0, 280, 40))
    assert psnr(_read(made, frames), ffmpeg_frames(path, size=made.size)[frames]) > 35


def test_a_variable_rate_keeps_its_times_and_fps_goes_by_them(ffmpeg_video: MakeVideo) -> None:
    slow_end = "setpts=if(lt(N\\,20)\\,N\\,20+(N-20)*3)"  # frame 20 + n is shown at 0.8 s + 0.12 s * n
    path = ffmpeg_video("v.mkv", "-vf", slow_end, "-fps_mode", "passthrough", "-c:v", "libx264", frames=30)
    whole = _transcoded(path)
    assert np.allclose(whole.times_seconds[[19, 20, 21, 29]], [0.76, 0.80, 0.92, 1.88], atol=0.002)
    steady = _transcoded(path, sampling="fps", fps=10)
    numbers = read_numbers(_read(steady, list(range(len(steady.times_seconds)))))
    shown = [
        int(np.searchsorted(whole.times_seconds, tick / 10 + 0.002, side="right")) - 1 for tick in range(len(numbers))
    ]
    assert numbers == shown and len(numbers) in (19, 20)


@pytest.mark.parametrize(
    ("name", "offset", "start"), [("late.mkv", 300, 300), ("usual.ts", 0, 1.4), ("before-zero.ts", 95441.5, -0.82)]
)
def test_fps_counts_from_the_first_frame_whenever_that_is(
    ffmpeg_video: MakeVideo, name: str, offset: float, start: float
) -> None:
    """A transport stream that begins shortly before its clock wraps around has negative times."""
    encoding = ("-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", "-output_ts_offset", str(offset))
    made = _transcoded(ffmpeg_video(name, *encoding), sampling="fps", fps=12.5)
    assert made.info.start_seconds == pytest.approx(start, abs=0.1)
    assert np.allclose(made.times_seconds, np.arange(20) / 12.5, atol=1e-3)
    assert read_numbers(_read(made, list(range(20)))) == list(range(0, 40, 2))


def test_fps_is_not_misled_by_times_in_milliseconds(ffmpeg_video: MakeVideo) -> None:
    """At 30 frames/s Matroska has 0.067 for 2/30, which is not too late for the tick at 2/30."""
    path = ffmpeg_video("m.mkv", "-c:v", "libx264", "-pix_fmt", "yuv420p", fps=30)
    made = _transcoded(path, sampling="fps", fps=15)
    assert read_numbers(_read(made, list(range(20)))) == list(range(0, 40, 2)) and len(made.times_seconds) == 20


def test_fps_that_the_containers_clock_does_not_know(ffmpeg_video: MakeVideo) -> None:
    """AVI counts time in frames."""
    path = ffmpeg_video("c.avi", "-c:v", "mpeg4", "-q:v", "3", fps=30)
    for fps in (12.5, 50):
        made = _transcoded(path, sampling="fps", fps=fps)
        assert np.allclose(made.times_seconds, np.arange(len(made.times_seconds)) / fps, atol=1e-3)
        shown = np.floor(made.times_seconds * 30 + 0.06).astype(int).tolist()
        assert read_numbers(_read(made, list(range(len(shown))))) == shown
        assert abs(len(shown) - fps * 40 / 30) < 1


def test_a_rotated_video_is_stored_upright_and_a_crop_is_cut(videos_dir: Path) -> None:
    made = transcode_video(videos_dir / "rotated_90.mov", ClipSpec(height=240), crf=20, gop=GOP)
    assert made.size[0] == 240 < made.size[1]
    assert _transcoded(videos_dir / "rotated_90.mov", crop=(64, 48)).size == (64, 48)


def test_a_turn_that_is_not_followed_is_not_handed_on(ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    plain, turned, stored = ffmpeg_video("n.mp4", "-c:v", "libx264"), tmp_path / "turned.mp4", tmp_path / "stored.mp4"
    turn = ["-v", "error", "-display_rotation", "30", "-i", str(plain), "-c", "copy", str(turned)]
    run_ffmpeg(turn, timeout_seconds=60)
    stored.write_bytes(_transcoded(turned).content)
    assert read_numbers(ffmpeg_frames(stored, size=(96, 64))) == list(range(40))


def test_damage_is_an_error(videos_dir: Path, ffmpeg_video: MakeVideo, tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        _transcoded(videos_dir / "corrupted.mp4")
    assert caught.value.reason == "damaged"
    whole = ffmpeg_video("n.mkv", "-c:v", "libx264", frames=40).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(VideoError):
        _transcoded(cut)


def test_content_that_is_no_such_video_is_refused(ffmpeg_video: MakeVideo) -> None:
    made = _transcoded(ffmpeg_video("n.mp4", "-c:v", "libx264", frames=40))
    out = np.zeros((1, 64, 96, 3), np.uint8)
    for content in (b"", b"no video", made.content[: len(made.content) // 2], bytes(len(made.content))):
        with pytest.raises(ValueError):
            StoredVideo(content).read([39], out)
    with pytest.raises(ValueError, match="has 40"):
        StoredVideo(made.content).read([40], out)
    with pytest.raises(ValueError, match="expected 32x64"):
        StoredVideo(made.content).read([0], out[:, :, :32])
