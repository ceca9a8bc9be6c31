"""One run of the ffmpeg program over the packets of a video stream, stopping at the first sign of damage.

`-xerror` makes it end at an error that it would otherwise conceal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import IO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.ffmpeg import failure, start_ffmpeg
from vidpipe.video.files import absolute_path
from vidpipe.video.probe import VideoInfo

# Decoders that go on at an error unless they are told to make it one, and those that only say it, each time with pixels lost. All
# others either stop by themselves, or say more against sound videos than against damaged ones.
_TOLD_TO_STOP = frozenset({"mjpeg"})
_BELIEVED = frozenset({"ffv1", "gif"})
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class FfmpegRun:
    """One run of ffmpeg over a video stream; killed when the block is left, or when this process dies.

    Args:
        filters: what each decoded frame goes through.
        num_packets: how many packets to decode, so that nothing after them has a say; None for all.
        output: what is made of the frames, and where it goes, in ffmpeg's own options; `pipe:1` is what `read_into` reads.
        time_base: in which times are told: the file's own, or that which the filters give frames that they time anew.
        pass_fds: descriptors that ffmpeg is to inherit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        filters: Sequence[str],
        *,
        num_packets: int | None,
        output: Sequence[str],
        time_base: Literal["demux", "filter"] = "demux",
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._believed = info.codec if info.codec in _BELIEVED else ""
        self._times = os.memfd_create("times")
        self._errors = os.memfd_create("errors")
        # What the pictures themselves say of turns (H.264, HEVC) and the container of crops, only ffmpeg would follow.
        is_turned = info.rotation or (info.mirrored and not info.ignored_angle)
        geometry = ["-autorotate" if is_turned else "-noautorotate", "-apply_cropping", "codec"]
        args = [
            *("-nostdin", "-loglevel", "error", "-xerror", "-copyts", "-filter_threads", "1", "-threads", "1"),
            *geometry,
            *(("-err_detect:v", "explode") if info.codec in _TOLD_TO_STOP else ()),
            *("-reinit_filter", "0"),  # else frames are counted anew when the picture changes its size
            *(("-bsf:v", f"noise=amount=0:drop='gte(n,{num_packets})'") if num_packets is not None else ()),
            *("-protocol_whitelist", "file", "-i", absolute_path(path), "-map", f"0:{info.stream_index}"),
            *("-fps_mode", "passthrough", "-enc_time_base", time_base),
            *(("-vf", ",".join(filters)) if filters else ()),
            *("-stats_enc_pre:v", f"/proc/self/fd/{self._times}", "-stats_enc_pre_fmt:v", "{pts} {tb}"),
            *output,
        ]
        self._process = start_ffmpeg(args, stderr=self._errors, pass_fds=(self._times, *pass_fds))
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
            VideoError: it failed: reason `damaged` or `crash`, stage `decode`.
            VidpipeError: this ffmpeg can't do what is needed.
        """
        while self._stdout.read(_PIPE_BYTES):
            pass
        returncode = self._process.wait()
        said = _content(self._errors)
        if returncode != 0 or (self._believed and f"[{self._believed} @ ".encode() in said):
            raise failure(said, returncode)

    def times_seconds(self) -> NDArray[np.float64]:
        """Times of the frames that passed the filters, in the file's own clock."""
        lines = _content(self._times).decode("ascii").splitlines()
        return np.array([int(ticks) * float(Fraction(base)) for ticks, base in (line.split() for line in lines)])


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
