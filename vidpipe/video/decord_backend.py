"""Decoding with decord: one thread, forward in one pass, no frame resized that is not needed.

Measured with decord2 3.4.0 against the ffmpeg program, whose bytes decord gives exactly when it is used as here:

- `get_batch` seeks by packet times and gives wrong frames for streams with edit lists and for MPEG-4 in AVI;
- `skip_frames` seeks too when it crosses a key frame; else it tells frames by their times, so it loses some, now and then,
  where those are guessed, as for B-frames in AVI and in MPEG-4; there every frame is read;
- MPEG program and transport streams lose their first frames.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.clips import ClipBuffers, DecodingStoppedError
from vidpipe.video.decord_library import can_decode, captured_complaints, load_decord
from vidpipe.video.files import library_path
from vidpipe.video.probe import IndexedVideo
from vidpipe.video.spec import ClipSpec

_NO_REPEATED_FRAMES = 1e-9  # decord raises as soon as it repeats a frame in place of one that it could not decode
_CPU = (1, 0)  # DLPack's device


def why_not_decord(video: IndexedVideo) -> str:
    """Why decord can't decode a sound video for which `IndexedVideo.only_ffmpeg` is empty; empty when it can."""
    if video.info.pix_fmt == "pal8":
        return "decord loses the colours of palettes"
    return "" if can_decode(video.info.codec) else f"decord has no decoder for {video.info.codec}"


def decode_with_decord(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, buffers: ClipBuffers, *, strict: bool
) -> bool:
    """Fill `buffers` with the frames that they want.

    decord decodes ahead by an amount that varies from run to run, so neither what it says here nor that it stops is a
    verdict on the video.

    Args:
        strict: go on to the last frame instead of stopping at the last one that is wanted.

    Returns:
        Whether its libav did not complain; if it did, a frame may have been concealed.

    Raises:
        DecodingStoppedError: not all frames came.
    """
    decord = load_decord()
    left, top = spec.crop_origin(video.info.width, video.info.height)
    width, height = buffers.size
    last = video.info.num_frames - 1 if strict else None
    with library_path(path) as name:
        reader = _open(decord, name, spec.scaled_size(video.info.width, video.info.height))
        with captured_complaints() as complaints:
            try:
                for index, frame in _forward(reader, buffers.wanted, last=last, can_skip=not video.has_guessed_times):
                    buffers.place(index)[...] = frame[top : top + height, left : left + width]
                    buffers.share(index)
            except (decord.DECORDError, decord.DECORDLimitReachedError) as error:
                raise DecodingStoppedError(str(error)) from error
            finally:
                del reader  # ends its thread while complaints are still captured
    return not complaints


def _open(decord: Any, name: str, size: tuple[int, int]) -> Any:
    width, height = size
    try:
        return decord.VideoReader(name, width=width, height=height, num_threads=1, fault_tol=_NO_REPEATED_FRAMES)
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        raise DecodingStoppedError(str(error)) from error


def _forward(
    reader: Any, wanted: list[int], *, last: int | None, can_skip: bool
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The wanted frames, each a view of decord's memory that is valid until the next one is asked for.

    Args:
        last: a further frame up to which to decode.
        can_skip: frames between them may be decoded without being converted and resized.
    """
    boundaries: list[int] = sorted(reader.get_key_indices()) if can_skip else list(range(wanted[-1] + 1))
    at = 0
    for index in wanted:
        _pass_over(reader, boundaries, at, index)
        yield index, _next(reader)
        at = index + 1
    if last is not None and last >= at:
        _pass_over(reader, boundaries if can_skip else list(range(last + 1)), at, last)
        _next(reader)


def _pass_over(reader: Any, boundaries: list[int], at: int, target: int) -> None:
    """Read on from frame `at` to just before `target`.

    decord's `skip_frames` seeks when it crosses a key frame, so the frames before these `boundaries` are read instead.
    """
    for boundary in boundaries[bisect_right(boundaries, at) : bisect_right(boundaries, target)]:
        if boundary - 1 > at:
            reader.skip_frames(boundary - 1 - at)
        _next(reader)
        at = boundary
    if target > at:
        reader.skip_frames(target - at)


def _next(reader: Any) -> NDArray[np.uint8]:
    try:
        frame = reader.next()
    except StopIteration as error:
        raise DecodingStoppedError("there is no further frame") from error
    view: Any = np.from_dlpack(frame if hasattr(frame, "__dlpack__") else _Exported(frame))
    height, width, channels = view.shape
    if channels != 3:  # decord takes the padding at the ends of the rows of a very narrow picture for further channels
        view = view.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
    return cast("NDArray[np.uint8]", view)


class _Exported:
    """decord's array as numpy takes it, without a copy."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: object) -> Any:
        return self._array.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU
