"""Decoding with the ffmpeg program: raw frames on a pipe, with the time of each, stopping at the first sign of damage.

For codecs, containers and pictures that decord can't be trusted with, or by choice. `-xerror` makes ffmpeg end at an error
that it would otherwise conceal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import VideoError
from vidpipe.video.clips import ClipBuffers
from vidpipe.video.ffmpeg import failure, start_ffmpeg
from vidpipe.video.files import absolute_path
from vidpipe.video.packets import missing_frames
from vidpipe.video.probe import IndexedVideo, VideoInfo
from vidpipe.video.spec import ClipSpec

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_MAX_SELECT_TERMS = 250
_ALL_PACKETS = 1 << 31
# PQ and HLG to BT.709: 203 nits are white (ITU-R BT.2408), tones up to 0.8 of it are kept, up to 1000 nits rolled off.
_TONE_MAP = (
    "zscale=w={width}:h={height}:filter=bicubic:transfer=linear:npl=203,format=gbrpf32le,zscale=primaries=bt709,"
    "tonemap=tonemap=mobius:param=0.8:peak=5:desat=0,zscale=transfer=bt709:matrix=gbr:range=full,format=gbrp"
)


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
    filters = [f"select='{expression}'", *_picture_filters(video.info, spec), "format=rgb24"]
    num_packets = None if strict else int(video.packets_before[wanted[-1]])
    places = set(wanted)
    spill = np.empty((buffers.size[1], buffers.size[0], 3) if len(arriving) > len(places) else 0, np.uint8)
    with _Run(path, video.info, filters, num_packets=num_packets, output=("-f", "rawvideo")) as run:
        for index in arriving:
            if not run.read_into(buffers.place(index) if index in places else spill):
                break
            if index in places:
                buffers.share(index)
        run.wait()
        return _are_same_frames(video, arriving, run.times_seconds())


def find_damage(path: str | os.PathLike[str], video: IndexedVideo, *, last: int) -> None:
    """Decode what is needed for the frames up to `last`, strictly, and keep nothing.

    Raises:
        VideoError: reason `damaged`, stage `decode`, when ffmpeg finds an error on the way.
    """
    num_packets = int(video.packets_before[last])
    with _Run(path, video.info, [], num_packets=num_packets, output=("-f", "null")) as run:
        run.wait()


def measured(path: str | os.PathLike[str], video: IndexedVideo) -> IndexedVideo:
    """The video with the frames that ffmpeg really gives, for when its packets don't tell; decodes all of it once.

    Raises:
        VideoError: stage `decode`: `damaged`, `no-frames`, or `truncated` when far fewer than promised are given.
    """
    with _Run(path, video.info, [], num_packets=None, output=("-f", "null")) as run:
        run.wait()
        times = np.sort(run.times_seconds())
    if len(times) == 0:
        raise VideoError("no-frames", "ffmpeg gives no frame, and no error either", stage="decode")
    missing = missing_frames(video.info.promised_frames, len(times))
    if missing:
        message = f"{missing} of {video.info.promised_frames} promised frames are missing"
        raise VideoError("truncated", message, stage="decode")
    info = replace(video.info, num_frames=len(times), start_seconds=float(times[0]))
    return IndexedVideo(info, times, np.full(len(times), _ALL_PACKETS), has_guessed_times=True, doubt="")


def _are_same_frames(video: IndexedVideo, arriving: Sequence[int], times_seconds: NDArray[np.float64]) -> bool:
    """Whether frames with these times are the `arriving` ones of the video; guessed times tell no more than how many."""
    if len(times_seconds) != len(arriving):
        return False
    differences = np.abs(times_seconds - video.times_seconds[arriving])
    half_a_frame = video.info.duration_seconds / video.info.num_frames / 2
    return video.has_guessed_times or bool(np.all(differences <= half_a_frame))


class _Run:
    """One run of ffmpeg over a video stream; killed when the block is left, or when this process dies.

    Args:
        filters: what each decoded frame goes through.
        num_packets: how many packets to decode, so that nothing after them has a say; None for all.
        output: format options of what is written to the pipe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        filters: Sequence[str],
        *,
        num_packets: int | None,
        output: Sequence[str],
    ) -> None:
        self._times = os.memfd_create("times")
        self._errors = os.memfd_create("errors")
        # Left to itself ffmpeg turns pictures upright.
        turn = ["-noautorotate"] if info.ignored_angle and not info.rotation else []
        args = [
            *("-nostdin", "-loglevel", "error", "-xerror", "-copyts", "-filter_threads", "1", "-threads", "1", *turn),
            *("-reinit_filter", "0"),  # else frames are counted anew when the picture changes its size
            *(("-bsf:v", f"noise=amount=0:drop='gte(n,{num_packets})'") if num_packets is not None else ()),
            *("-protocol_whitelist", "file", "-i", absolute_path(path), "-map", f"0:{info.stream_index}"),
            *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
            *(("-vf", ",".join(filters)) if filters else ()),
            *("-stats_enc_pre:v", f"/proc/self/fd/{self._times}", "-stats_enc_pre_fmt:v", "{pts} {tb}"),
            *(*output, "pipe:1"),
        ]
        self._process = start_ffmpeg(args, stderr=self._errors, pass_fds=(self._times,))
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._stdout, _F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._stdout.close()
        self._process.wait()
        os.close(self._times)
        os.close(self._errors)

    @property
    def _stdout(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise RuntimeError("ffmpeg was started without a pipe")
        return self._process.stdout

    def read_into(self, frame: NDArray[np.uint8]) -> bool:
        """Read the next raw frame into a C-contiguous array; False when ffmpeg ends before it is whole."""
        left = memoryview(frame.reshape(-1))  # type: ignore[arg-type]  # numpy's stubs hide the buffer protocol
        while left:
            count = self._stdout.readinto(left)  # type: ignore[attr-defined]
            if not count:
                return False
            left = left[count:]
        return True

    def wait(self) -> None:
        """Wait for its end; what it still writes is thrown away.

        Raises:
            VideoError: it failed: reason `damaged` or `crashed`, stage `decode`.
            VidpipeError: this ffmpeg can't do what is needed.
        """
        while self._stdout.read(_PIPE_BYTES):
            pass
        returncode = self._process.wait()
        if returncode != 0:
            raise failure(_content(self._errors), returncode)

    def times_seconds(self) -> NDArray[np.float64]:
        """Times of the frames that passed the filters, in the file's own clock."""
        lines = _content(self._times).decode("ascii").splitlines()
        return np.array([int(ticks) * float(Fraction(base)) for ticks, base in (line.split() for line in lines)])


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _picture_filters(info: VideoInfo, spec: ClipSpec) -> list[str]:
    width, height = spec.scaled_size(info.width, info.height)
    scale = _TONE_MAP.format(width=width, height=height) if info.is_hdr else f"scale={width}:{height}"
    if spec.crop is None:
        return [scale]
    left, top = spec.crop_origin(info.width, info.height)
    crop_width, crop_height = spec.output_size(info.width, info.height)
    return [scale, "format=rgb24", f"crop={crop_width}:{crop_height}:{left}:{top}"]


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
