"""The ffmpeg program: where it is, and running it without a shell, without leaving it behind."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence

from vidpipe.errors import UsageError, VideoError, VidpipeError

_ADDRESS = re.compile(r" @ 0x[0-9a-fA-F]+")
_PROGRAM_LINES = ("[vist#", "[vost#", "[in#", "[out#", "[fc#", "[dec:", "[enc:", "[AVFormatContext")
_OPTION_NOT_FOUND = 8  # AVERROR_OPTION_NOT_FOUND and AVERROR_FILTER_NOT_FOUND, as an exit code
# What its machine lacks, as an exit code: the low byte of the negative error number.
_MACHINES_OWN = {-code & 0xFF: code for code in (errno.EAGAIN, errno.EMFILE, errno.ENFILE)}
_NO_MEMORY = -errno.ENOMEM & 0xFF
_NOT_STARTED = (126, 127)  # exit codes of what should have become ffmpeg


@functools.cache
def ffmpeg_path() -> str:
    """The ffmpeg that is used: `$VIDPIPE_FFMPEG` (a path, or a name on PATH), else the static one of imageio-ffmpeg.

    Raises:
        UsageError: `$VIDPIPE_FFMPEG` names no program.
    """
    wanted = os.environ.get("VIDPIPE_FFMPEG")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise UsageError(f"VIDPIPE_FFMPEG={wanted}: no such program; give a path, a name on PATH, or unset it")
        return found
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def ffmpeg_version() -> str:
    """ffmpeg's own version, for instance `n9.0.2-17-g2a571b6068-20260930`."""
    first_line = run_ffmpeg(["-version"], timeout_seconds=60).decode("utf-8", "replace").partition("\n")[0]
    return first_line.removeprefix("ffmpeg version ").partition(" ")[0]


def run_ffmpeg(args: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None) -> bytes:
    """Run ffmpeg to its end and return its stdout.

    Args:
        args: everything after the program's name; passed as it is, no shell is involved.
        timeout_seconds: wall-clock limit, after which it is killed.
        stdin: what it reads from standard input; None gives it an empty one.

    Raises:
        VideoError: it failed (reason `ffmpeg`, with the end of its stderr) or took too long (reason `timeout`).
    """
    process = start_ffmpeg(
        [*([] if stdin is not None else ["-nostdin"]), *args],
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise VideoError("timeout", f"ffmpeg did not end within {timeout_seconds:g} s", stage="decode") from error
        finally:
            process.kill()
    if process.returncode != 0:
        words = " ".join(_ADDRESS.sub("", stderr.decode("utf-8", "replace")).split())[-400:]
        raise VideoError("ffmpeg", f"ffmpeg ended with exit code {process.returncode}: {words}", stage="decode")
    return stdout


def start_ffmpeg(
    args: Sequence[str], *, stdin: int = subprocess.DEVNULL, stderr: int, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start ffmpeg with a pipe for its stdout.

    It dies with the thread that starts it, even if that is killed; without a `setpriv` that sees to it, only when it next writes.
    """
    return subprocess.Popen(
        [*_tied_to_parent(), ffmpeg_path(), "-hide_banner", *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        pass_fds=pass_fds,
    )


def failure(stderr: bytes, returncode: int) -> Exception:
    """What the failure of an ffmpeg that was decoding means.

    Its words are the same every time: without memory addresses, and of its libraries' lines if there are any, as those of
    its own threads come in any order.

    Returns:
        VideoError: reason `damaged`, or `crash` when a signal ended it or it had no memory.
        VidpipeError: this ffmpeg can't be started, or lacks an option or filter that is used here.
        OSError: the machine had no more threads or descriptors for it.
    """
    if returncode < 0:
        return VideoError("crash", f"ffmpeg was ended by {signal.Signals(-returncode).name}", stage="decode")
    if returncode == _NO_MEMORY:
        return VideoError("crash", "ffmpeg had not enough memory", stage="decode")
    if returncode in _MACHINES_OWN:
        code = _MACHINES_OWN[returncode]
        return OSError(code, os.strerror(code), ffmpeg_path())
    text = _ADDRESS.sub("", stderr.decode("utf-8", "replace"))
    if returncode in _NOT_STARTED:
        return VidpipeError(f"{ffmpeg_path()} can't be started: {text.strip()}")
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    from_libraries = [line for line in lines if line.startswith("[") and not line.startswith(_PROGRAM_LINES)]
    from_decoder = [line for line in lines if "[dec:" in line]
    words = "; ".join((from_libraries or from_decoder or lines)[:3])[:400] or f"exit code {returncode}"
    if returncode == _OPTION_NOT_FOUND or "Error setting option" in text:  # the option, or the value, is unknown
        return VidpipeError(
            f"{ffmpeg_path()} is too old or lacks a part ({words}); ffmpeg 8 or newer with zscale is needed"
        )
    return VideoError("damaged", f"ffmpeg stopped: {words}", stage="decode")


@functools.cache
def _tied_to_parent() -> tuple[str, ...]:
    """The start of a command line by which the kernel kills it when its parent dies; empty where no such program is.

    Python's `preexec_fn` could ask for that, too, but runs between fork and exec, where other threads' locks never open.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    tied = (setpriv, "--pdeathsig", "KILL", "--")
    # An old one of util-linux's, or busybox's, doesn't know that option.
    tried = subprocess.run([*tied, setpriv, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return tied if tried.returncode == 0 else ()
