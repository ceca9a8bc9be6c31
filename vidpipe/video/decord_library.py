"""The decord package: that it is the right one, what its libav can decode, and what its libav complains of."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidpipe.errors import VidpipeError

_QUIET = -8
_ERROR = 16
_LINE_BYTES = 512
_MAX_COMPLAINTS = 100
_ADDRESS = re.compile(r" @ 0x[0-9a-fA-F]+")
# Names of decoders that are not their codec's.
_DECODERS = {"av1": ("libdav1d", "libaom-av1"), "vp8": ("vp8", "libvpx"), "vp9": ("vp9", "libvpx-vp9")}


@functools.cache
def load_decord() -> Any:
    """The decord module, checked and quiet.

    Raises:
        VidpipeError: it is missing, or both `decord` and `decord2` are installed, which overwrite each other's files.
    """
    if distribution_version("decord") and distribution_version("decord2"):
        raise VidpipeError(
            "both decord and decord2 are installed, and each overwrites the other's files; "
            "mend it with: pip uninstall -y decord decord2 && pip install decord2"
        )
    try:
        with _without_cuda():
            import decord
    except (ImportError, OSError, RuntimeError) as error:
        raise VidpipeError(f"decord can't be imported ({error}); install it with: pip install decord2") from error
    decord.logging.set_level(_QUIET)
    return decord


@contextmanager
def _without_cuda() -> Iterator[None]:
    """Hide the CUDA libraries that come as Python packages: decord loads all of them on import, for nothing on the CPU.

    Measured with those of CUDA 13: 0.27 s and 370 MB in each process, against 0.02 s and 3 MB.
    """
    hide = "nvidia" not in sys.modules
    if hide:
        sys.modules["nvidia"] = None  # type: ignore[assignment]  # import's own word for "there is none"
    try:
        yield
    finally:
        if hide:
            del sys.modules["nvidia"]


def decord_version() -> str:
    """Distribution and version, for instance `decord2 3.4.0`, or `none`."""
    found = ((name, distribution_version(name)) for name in ("decord2", "decord"))
    return next((f"{name} {version}" for name, version in found if version), "none")


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution; None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def can_decode(codec: str) -> bool:
    """Whether decord's libavcodec has a decoder for `codec`; when its build hides that, only trying would tell: True."""
    library = _libav()
    if library is None:
        return True
    find = library.avcodec_find_decoder_by_name
    find.restype = ctypes.c_void_p
    return any(find(name.encode()) for name in _DECODERS.get(codec, (codec,)))


def _libav() -> ctypes.CDLL | None:
    """decord's shared library; by it the libav functions that it was linked with are found, unless they are hidden."""
    load_decord()
    from decord._ffi import base

    library = getattr(base, "_LIB", None)
    has_all = isinstance(library, ctypes.CDLL) and all(
        hasattr(library, name)
        for name in (
            "av_log_set_callback",
            "av_log_default_callback",
            "av_log_format_line2",
            "avcodec_find_decoder_by_name",
        )
    )
    return library if has_all else None


_ONE_AT_A_TIME = threading.Lock()
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def captured_complaints() -> Iterator[list[str]]:
    """What decord's libav says at level error or worse, which is its only sign of damage that it conceals.

    libav has one log callback a process, so one thread at a time is let in. A callback costs about 1 us, and there are up
    to ten a frame: 2 % of decoding a 256-line video.
    """
    library = _libav()
    complaints: list[str] = []
    if library is None:
        yield complaints
        return
    with _ONE_AT_A_TIME, _log_callback(library, complaints):
        yield complaints


@contextmanager
def _log_callback(library: ctypes.CDLL, complaints: list[str]) -> Iterator[None]:
    format_line = library.av_log_format_line2

    def on_log(source: int | None, level: int, text: bytes, values: int | None) -> None:
        if level > _ERROR or len(complaints) >= _MAX_COMPLAINTS:
            return
        line = ctypes.create_string_buffer(_LINE_BYTES)
        with_prefix = ctypes.c_int(1)
        format_line(
            ctypes.c_void_p(source), level, ctypes.c_char_p(text), ctypes.c_void_p(values), line, _LINE_BYTES,
            ctypes.byref(with_prefix),
        )  # fmt: skip
        complaints.append(_ADDRESS.sub("", line.value.decode("utf-8", "replace").strip()))

    callback = _LOG_CALLBACK(on_log)
    library.av_log_set_callback(callback)
    try:
        yield
    finally:
        library.av_log_set_callback(library.av_log_default_callback)
