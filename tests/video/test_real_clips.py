"""The real clips: what they are, and their frames against the ffmpeg program's own.

Measured with decord2 3.4.0 (FFmpeg 8.1) and ffmpeg 9.0: the same bytes, PSNR infinite, for every clip; 45 dB leaves room for
other versions. A wrong frame of these clips is below 40 dB, wrong colours below 30 dB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from video.numbered import ffmpeg_frames, psnr

from vidpipe.errors import VideoError
from vidpipe.video.decode import Decoder, decoder_versions, extract_clips
from vidpipe.video.probe import probe
from vidpipe.video.spec import ClipSpec

CLIPS = {
    # name: codec, width, height, fps, frames, SAR, rotation
    "kinetics_9r8wpMS2iEk_000048_000058.mp4": ("h264", 320, 180, 25, 252, "1:1", 0),
    "kinetics_YABnJL_bDzw.mp4": ("h264", 454, 256, 25, 302, "1:1", 0),
    "arm_wrestling.mp4": ("h264", 340, 256, 28, 280, "64:51", 0),
    "mma_sport.mp4": ("h264", 340, 256, 30, 300, "1024:765", 0),
    "xvid.avi": ("mpeg4", 320, 240, 25, 164, "1:1", 0),
    "flipping_a_pancake.mkv": ("h264", 426, 240, 30, 310, "1:1", 0),
    "ntu_1080p.avi": ("h264", 1920, 1080, 30, 103, "1:1", 0),
    "av1.mkv": ("av1", 640, 360, 25, 125, "1:1", 0),
    "rotated_90.mov": ("h264", 320, 568, 30, 3, "1:1", 90),
    "unordered_pts.mov": ("h264", 50, 50, 32, 4, "1:1", 0),
}
SAME_DB = 45.0


@pytest.mark.parametrize("name", CLIPS)
def test_probe(name: str, videos_dir: Path) -> None:
    info = probe(videos_dir / name)
    found = (info.codec, info.width, info.height, round(info.fps), info.num_frames, info.sar, info.rotation)
    assert found == CLIPS[name]
    assert info.promised_frames == info.num_frames
    assert info.duration_seconds == pytest.approx(info.num_frames / info.fps, abs=0.005)


@pytest.mark.parametrize("decoder", ["pyav", "decord", "ffmpeg"])
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_ffmpegs(name: str, decoder: Decoder, videos_dir: Path) -> None:
    spec = ClipSpec(frames=8, stride=4, clips=2, height=240)
    extraction = extract_clips(videos_dir / name, spec, key=name, decoder=decoder)
    size = spec.output_size(extraction.info.width, extraction.info.height)
    reference = ffmpeg_frames(videos_dir / name, size=size)
    assert len(reference) == extraction.info.num_frames
    for clip in extraction.clips:
        assert psnr(clip.video, reference[clip.frame_indices]) >= SAME_DB
        np.testing.assert_allclose(clip.times_seconds, clip.frame_indices / CLIPS[name][3], atol=0.002)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord", "ffmpeg"])
def test_the_corrupted_clip_is_damaged(decoder: Decoder, strict: bool, videos_dir: Path) -> None:
    with pytest.raises(VideoError) as raised:
        extract_clips(
            videos_dir / "corrupted.mp4",
            ClipSpec(frames=16, stride=2, clips=2),
            key="corrupted.mp4",
            decoder=decoder,
            strict=strict,
        )
    assert (raised.value.reason, raised.value.stage) == ("damaged", "decode")
    assert "NAL unit" in raised.value.message


def test_versions_are_named() -> None:
    versions = decoder_versions()
    assert set(versions) == {"av", "decord", "ffmpeg"}
    assert all(any(character.isdigit() for character in version) for version in versions.values())
