"""From a video file to its clips: probe, plan, choose a decoder, decode once, and believe nothing that looks damaged.

decord decodes what it can be trusted with, the ffmpeg program the rest. Neither is ever used to rescue what the other
finds damaged. On the same machine both give the same bytes.
"""

from __future__ import annotations

import os
from typing import Literal

from vidpipe.errors import VideoError
from vidpipe.video.clips import Clip, ClipBuffers, Extraction
from vidpipe.video.decord_backend import DecordStoppedError, decode_with_decord, why_not_decord
from vidpipe.video.decord_library import decord_version, distribution_version
from vidpipe.video.ffmpeg import ffmpeg_version
from vidpipe.video.ffmpeg_backend import decode_with_ffmpeg, find_damage, measured
from vidpipe.video.probe import IndexedVideo, index_video
from vidpipe.video.sampling import plan_clips
from vidpipe.video.spec import ClipSpec

__all__ = ["Clip", "Decoder", "Extraction", "decoder_versions", "extract_clips"]

Decoder = Literal["auto", "decord", "ffmpeg"]


def extract_clips(
    path: str | os.PathLike[str], spec: ClipSpec, *, key: str, decoder: Decoder = "auto", strict: bool = False
) -> Extraction:
    """Decode all clips of one video in a single pass.

    It holds the clips, one frame, and what the decoder needs; it sets no time limit: run it in a process that can be
    killed, as decoders may hang on damaged files.

    Args:
        path: the file; its name may be anything that the system allows.
        spec: which frames, at what size.
        key: names the video (its path relative to the source); with `spec.seed` it keys the jitter.
        decoder: `auto` takes decord unless it can't be trusted with a sound video of this kind.
        strict: decode to the end of the video instead of the last frame that is needed.

    Raises:
        VideoError: the video can't be used: those of `probe`; at stage `decode`: `damaged`, `truncated`, `no-frames`,
            `unsupported` (decord was asked for by name and can't).
        VidpipeError: the installation of decord is broken.
    """
    video = index_video(path)
    objection = "" if decoder == "ffmpeg" else why_not_decord(video)
    if decoder == "decord" and objection:
        raise VideoError("unsupported", f"decord can't be used: {objection}", stage="decode")
    if decoder == "ffmpeg" or objection:
        return _by_ffmpeg(path, video, spec, key=key, strict=strict)
    return _by_decord(path, video, spec, key=key, strict=strict)


def _by_decord(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, *, key: str, strict: bool
) -> Extraction:
    """ffmpeg, limited to the packets that are needed, is the judge of what decord complains of or stops at."""
    buffers = _buffers(video, spec, key)
    try:
        if not decode_with_decord(path, video, spec, buffers, strict=strict):
            find_damage(path, video, last=video.info.num_frames - 1 if strict else buffers.wanted[-1])
    except DecordStoppedError:
        if not decode_with_ffmpeg(path, video, spec, buffers, strict=strict):
            return _by_ffmpeg(path, video, spec, key=key, strict=strict)
        # The damage lies behind what is needed; another time decord might not have reached it, and given these frames.
    return Extraction(video.info, "decord", buffers.clips(video.times_seconds))


def _by_ffmpeg(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, *, key: str, strict: bool
) -> Extraction:
    if not video.doubt:
        buffers = _buffers(video, spec, key)
        if decode_with_ffmpeg(path, video, spec, buffers, strict=strict):
            return Extraction(video.info, "ffmpeg", buffers.clips(video.times_seconds))
    video = measured(path, video)
    buffers = _buffers(video, spec, key)
    if not decode_with_ffmpeg(path, video, spec, buffers, strict=strict):
        raise VideoError("damaged", "ffmpeg gives other frames when it decodes the video again", stage="decode")
    return Extraction(video.info, "ffmpeg", buffers.clips(video.times_seconds))


def _buffers(video: IndexedVideo, spec: ClipSpec, key: str) -> ClipBuffers:
    plans = plan_clips(spec, video.times_seconds, key=key)
    return ClipBuffers(plans, spec.output_size(video.info.width, video.info.height))


def decoder_versions() -> dict[str, str]:
    """Versions of everything that has a say in the decoded bytes."""
    return {"decord": decord_version(), "ffmpeg": ffmpeg_version(), "av": distribution_version("av") or "none"}
