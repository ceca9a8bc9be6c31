"""Encoded frames come back: right colours, right number, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidpipe.video.decode import extract_clips
from vidpipe.video.encode import write_h264
from vidpipe.video.spec import ClipSpec


def test_frames_come_back_in_their_colours_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    colours = np.array([[220, 30, 40], [30, 200, 60], [40, 60, 210], [128, 128, 128]], np.uint8)
    video = np.broadcast_to(colours[:, None, None], (4, 48, 64, 3)).repeat(2, axis=0).copy()
    paths = [tmp_path / name for name in ("a 'name'; with\nall.mp4", "-b.mp4")]
    for path in paths:
        write_h264(path, video, fps=12.5, crf=5)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    extraction = extract_clips(paths[0], ClipSpec(frames=8, height=48), key="a")
    (clip,) = extraction.clips
    assert extraction.info.fps == 12.5 and clip.padded_frames == 0 and clip.video.shape == video.shape
    assert np.abs(clip.video.astype(int) - video).max() <= 5
