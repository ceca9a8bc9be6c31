from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from video.numbered import MakeVideo

from vidpipe.errors import VidpipeError
from vidpipe.video import decord_library
from vidpipe.video.decode import extract_clips
from vidpipe.video.spec import ClipSpec


@pytest.fixture
def unloaded() -> Iterator[None]:
    decord_library.load_decord.cache_clear()
    yield
    decord_library.load_decord.cache_clear()


@pytest.mark.usefixtures("unloaded")
def test_decord_and_decord2_together_are_refused(ffmpeg_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ffmpeg_video("x.mp4", "-c:v", "libx264")
    monkeypatch.setattr(decord_library, "distribution_version", lambda name: "1.0")
    with pytest.raises(VidpipeError, match="pip uninstall -y decord decord2 && pip install decord2"):
        extract_clips(path, ClipSpec(), key="k", decoder="decord")


def test_known_and_unknown_codecs() -> None:
    assert all(decord_library.can_decode(codec) for codec in ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"))
    assert not decord_library.can_decode("no-such-codec")


def test_complaints_are_caught_not_printed(
    videos_dir: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    decord = decord_library.load_decord()
    with caplog.at_level(logging.DEBUG), decord_library.captured_complaints() as complaints:
        reader = decord.VideoReader(str(videos_dir / "corrupted.mp4"), num_threads=1)
        with pytest.raises(decord.DECORDError):
            for _ in range(len(reader)):
                reader.next()
        del reader
    assert any("NAL unit" in complaint for complaint in complaints)
    assert all("0x" not in complaint for complaint in complaints)
    assert "NAL" not in capfd.readouterr().err
    assert not [record for record in caplog.records if "NAL" in record.getMessage()]
