"""Decoding with the ffmpeg program: raw frames on a pipe, with the time of each, stopping at the first sign of damage.

For codecs, containers and pictures that the libraries can't be trusted with, or by choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError
from vidpipe.video.clips import ClipBuffers
from vidpipe.video.ffmpeg_run import FfmpegRun
from vidpipe.video.packets import missing_frames
from vidpipe.video.picture import UNKNOWN
from vidpipe.video.probe import IndexedVideo, VideoInfo
from vidpipe.video.spec import ClipSpec

_MAX_SELECT_TERMS = 250
_ALL_PACKETS = 1 << 31
# PQ and HLG to BT.709: 203 nits are white (ITU-R BT.2408), tones up to 0.8 of it are kept, up to 1000 nits rolled off.
_TONE_MAP = (
    "zscale=w={width}:h={height}:filter=bicubic:transfer=linear:npl=203,format=gbrpf32le,zscale=primaries=bt709,"
    "tonemap=tonemap=mobius:param=0.8:peak=5:desat=0,zscale=transfer=bt709:matrix=gbr:range=full,format=gbrp"
)
# Matrices that swscale (without tones of HDR) and zimg (with them) can't convert to RGB.
_NO_ZSCALE = frozenset({"bt2020c", "smpte2085", "ipt-c2", "ycgco-re", "ycgco-ro"})
_NO_SCALE = _NO_ZSCALE | {"ycgco", "chroma-derived-nc", "chroma-derived-c", "ictcp"}


def decode_with_ffmpeg(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, buffers: ClipBuffers, *, strict: bool
) -> bool:
    """Fill `buffers` with the frames that they want.

    Args:
        strict: decode to the end, instead of what is needed for the last frame that is wanted.

    Returns:
        Whether they are the frames that `video` tells of, judged by their times.

    Raises:
        VideoError: reason `damaged`, stage `decode`.
    """
    wanted = buffers.wanted
    expression, arriving = _selection(wanted)
    filters = [f"select='{expression}'", *picture_filters(video.info, spec), "format=rgb24"]
    num_packets = None if strict else int(video.packets_before[wanted[-1]])
    places = set(wanted)
    spill = np.empty((buffers.size[1], buffers.size[0], 3) if len(arriving) > len(places) else 0, np.uint8)
    with FfmpegRun(path, video.info, filters, num_packets=num_packets, output=("-f", "rawvideo", "pipe:1")) as run:
        for index in arriving:
            if not run.read_into(buffers.place(index) if index in places else spill):
                break
            if index in places:
                buffers.share(index)
        run.wait()
        return are_same_frames(video, arriving, run.times_seconds())


def find_damage(path: str | os.PathLike[str], info: VideoInfo) -> NDArray[np.float64]:
    """Decode all of the video, strictly, and keep nothing but the frames' times, float64 [N], which never go back.

    Raises:
        VideoError: reason `damaged`, stage `decode`, when ffmpeg finds an error on the way, or times go back.
    """
    with FfmpegRun(path, info, [], num_packets=None, output=("-f", "null", "pipe:1")) as run:
        run.wait()
        times = run.times_seconds()
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        before, after = times[back[0] : back[0] + 2]
        message = f"the frames' times go back, first from {before:.3f} s to {after:.3f} s, as in files put end to end"
        raise VideoError("damaged", f"{message}; join those with ffmpeg's concat demuxer", stage="decode")
    return times


def measured(path: str | os.PathLike[str], video: IndexedVideo) -> IndexedVideo:
    """The video with the frames that ffmpeg really gives, for when its packets don't tell; decodes all of it once.

    Raises:
        VideoError: stage `decode`: `damaged`, `no-frames`, or `truncated` when far fewer than promised are given, besides
            those that refer to what comes before the first key frame.
    """
    times = find_damage(path, video.info)
    if len(times) == 0:
        raise VideoError("no-frames", "ffmpeg gives no frame, and no error either", stage="decode")
    promised = video.info.promised_frames
    missing = 0 if promised is None else missing_frames(promised - video.frames.num_leading, len(times))
    if missing:
        message = f"{missing} of {promised} promised frames are missing"
        raise VideoError("truncated", message, stage="decode")
    info = replace(video.info, num_frames=len(times), start_seconds=float(times[0]))
    packets_before = np.full(len(times), _ALL_PACKETS)
    return replace(
        video, info=info, times_seconds=times, packets_before=packets_before, has_guessed_times=True, doubt=""
    )


def are_same_frames(video: IndexedVideo, arriving: Sequence[int], times_seconds: NDArray[np.float64]) -> bool:
    """Whether frames with these times are the `arriving` ones of the video; guessed times tell no more than how many."""
    if len(times_seconds) != len(arriving):
        return False
    differences = np.abs(times_seconds - video.times_seconds[arriving])
    half_a_frame = video.info.duration_seconds / video.info.num_frames / 2
    return video.has_guessed_times or bool(np.all(differences <= half_a_frame))


def picture_filters(info: VideoInfo, spec: ClipSpec) -> list[str]:
    """ffmpeg's filters that bring a decoded frame to the size of the clips, and HDR to BT.709.

    Raises:
        VideoError: reason `unsupported`, stage `decode`: none can convert its colours.
    """
    if info.color_space in (_NO_ZSCALE if info.is_hdr else _NO_SCALE):
        tones = f" with {info.color_transfer}" if info.is_hdr else ""
        message = f"ffmpeg can't convert its colours to RGB (matrix {info.color_space}{tones})"
        raise VideoError("unsupported", message, stage="decode")
    width, height = spec.scaled_size(info.width, info.height)
    scale = [*_missing_colors(info), _TONE_MAP] if info.is_hdr else ["scale={width}:{height}"]
    filters = [text.format(width=width, height=height) for text in scale]
    if spec.crop is None:
        return filters
    left, top = spec.crop_origin(info.width, info.height)
    crop_width, crop_height = spec.output_size(info.width, info.height)
    return [*filters, "format=rgb24", f"crop={crop_width}:{crop_height}:{left}:{top}"]


def _missing_colors(info: VideoInfo) -> list[str]:
    """The filter that states what HDR leaves unsaid, as BT.2020: zimg wants to know."""
    stated = {"colorspace": (info.color_space, "bt2020nc"), "color_primaries": (info.color_primaries, "bt2020")}
    unsaid = [f"{name}={usual}" for name, (said, usual) in stated.items() if said == UNKNOWN]
    return [f"setparams={':'.join(unsaid)}"] if unsaid else []


def _selection(indices: Sequence[int]) -> tuple[str, Sequence[int]]:
    """ffmpeg's expression that is true for the frames `indices`, ascending, and the frames that it lets through.

    Those are more when the expression would be too long.
    """
    runs: list[range] = []
    for index in indices:
        last = runs[-1] if runs else None
        if last is not None and (len(last) == 1 or index == last.stop - 1 + last.step):
            runs[-1] = range(last.start, index + 1, index - last[-1])
        else:
            runs.append(range(index, index + 1))
    if len(runs) > _MAX_SELECT_TERMS:
        return f"between(n,{indices[0]},{indices[-1]})", range(indices[0], indices[-1] + 1)
    terms = [
        f"eq(n,{run.start})"
        if len(run) == 1
        else f"between(n,{run.start},{run[-1]})*not(mod(n-{run.start},{run.step}))"
        for run in runs
    ]
    return _sum(terms), indices


def _sum(terms: Sequence[str]) -> str:
    """Their sum, as a tree, because ffmpeg's expressions may be 100 levels deep and a chain is as deep as it is long."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return f"({_sum(terms[:middle])}+{_sum(terms[middle:])})"
