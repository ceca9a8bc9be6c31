"""From a video file to its clips: probe, plan, choose a decoder, decode once, and believe nothing that looks damaged.

PyAV, or decord where it is asked for by name, decodes what it can be trusted with, the ffmpeg program the rest. What a library
complains of, ffmpeg decodes again, stopping at the first sign of damage. On the same machine all give the same bytes.

Why not decord by default: PyAV can leave out the packets that the wanted frames don't need, which decord can't, and meets the
same damage in every run, while decord decodes ahead by an amount that varies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError
from vidpipe.video.access import judging
from vidpipe.video.clips import Allocate, Clip, ClipBuffers, DecodingStoppedError, Extraction, private_memory
from vidpipe.video.decord_backend import decode_with_decord, why_not_decord
from vidpipe.video.decord_library import decord_version, distribution_version
from vidpipe.video.ffmpeg import ffmpeg_version
from vidpipe.video.ffmpeg_backend import decode_with_ffmpeg, measured
from vidpipe.video.probe import IndexedVideo, index_video
from vidpipe.video.pyav_backend import decode_with_pyav
from vidpipe.video.sampling import ClipPlan, plan_clips
from vidpipe.video.spec import ClipSpec

__all__ = ["Clip", "Decoder", "Extraction", "decoder_versions", "extract_clips"]

Decoder = Literal["auto", "pyav", "decord", "ffmpeg"]
_Library = Literal["pyav", "decord"]
PlanClips = Callable[[NDArray[np.float64]], tuple[ClipPlan, ...]]
_NewBuffers = Callable[[IndexedVideo], ClipBuffers]
_LIBRARIES = {"pyav": decode_with_pyav, "decord": decode_with_decord}


def extract_clips(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    *,
    key: str,
    decoder: Decoder = "auto",
    strict: bool = False,
    allocate: Allocate = private_memory,
    plan: PlanClips | None = None,
) -> Extraction:
    """Decode all clips of one video in a single pass.

    It holds the clips, one frame, and what the decoder needs; it sets no time limit: run it in a process that can be
    killed, as decoders may hang on damaged files.

    Args:
        path: the file; its name may be anything that the system allows.
        spec: which frames, at what size.
        key: names the video (its path relative to the source); with `spec.seed` it keys the jitter.
        decoder: `auto` takes PyAV, `decord` takes decord, and either of them leaves to the ffmpeg program what the library
            can't be trusted with if it is sound (never what is damaged); `pyav` and `ffmpeg` take that alone.
        strict: decode all of the video instead of what the wanted frames need.
        allocate: gives the memory of all clips together; it may be asked twice, when a video has to be decoded again.
        plan: from the times of all frames in seconds to the frames of the clips; `plan_clips` by default.

    Raises:
        VideoError: the video can't be used: those of `probe`; at stage `decode`: `damaged`, `truncated`, `no-frames`,
            `unsupported` (`pyav` was asked for and can't, or ffmpeg can't convert its colours to RGB).
        VidpipeError: the installation of decord is broken.
        OSError: this machine, or the storage that the file lies on, is at fault.
    """
    with judging(path):
        video = index_video(path)

        def new_buffers(video: IndexedVideo) -> ClipBuffers:
            times = video.times_seconds
            plans = plan_clips(spec, times, key=key) if plan is None else plan(times)
            return ClipBuffers(plans, spec.output_size(video.info.width, video.info.height), allocate)

        if decoder == "ffmpeg":
            return _by_ffmpeg(path, video, spec, new_buffers, strict=strict)
        library: _Library = "pyav" if decoder == "auto" else decoder
        objection = video.only_ffmpeg or (why_not_decord(video) if library == "decord" else "")
        if objection and decoder == "pyav":
            raise VideoError("unsupported", f"pyav can't be used: {objection}; decoder: auto can", stage="decode")
        if objection:
            return _by_ffmpeg(path, video, spec, new_buffers, strict=strict)
        return _by_library(library, path, video, spec, new_buffers, strict=strict)


def _by_library(
    library: _Library,
    path: str | os.PathLike[str],
    video: IndexedVideo,
    spec: ClipSpec,
    new_buffers: _NewBuffers,
    *,
    strict: bool,
) -> Extraction:
    """What the library complains of or stops at, ffmpeg decodes again, and judges."""
    buffers = new_buffers(video)
    with suppress(DecodingStoppedError):
        if _LIBRARIES[library](path, video, spec, buffers, strict=strict):
            return Extraction(video.info, library, buffers.clips(video.times_seconds))
    extraction = _by_ffmpeg(path, video, spec, new_buffers, strict=strict)
    # decord decodes ahead by an amount that varies, and may meet damage behind what is needed: no two runs may differ by that.
    return replace(extraction, decoder="decord") if library == "decord" else extraction


def _by_ffmpeg(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, new_buffers: _NewBuffers, *, strict: bool
) -> Extraction:
    if not video.doubt:
        buffers = new_buffers(video)
        if decode_with_ffmpeg(path, video, spec, buffers, strict=strict):
            return Extraction(video.info, "ffmpeg", buffers.clips(video.times_seconds))
    video = measured(path, video)
    buffers = new_buffers(video)
    if not decode_with_ffmpeg(path, video, spec, buffers, strict=strict):
        raise VideoError("damaged", "ffmpeg gives other frames when it decodes the video again", stage="decode")
    return Extraction(video.info, "ffmpeg", buffers.clips(video.times_seconds))


def decoder_versions() -> dict[str, str]:
    """Versions of everything that has a say in the decoded bytes."""
    return {"decord": decord_version(), "ffmpeg": ffmpeg_version(), "av": distribution_version("av") or "none"}
