"""Reads single frames of the short-GOP H.264 videos that `transcode` and `encode` make, from memory, with PyAV.

In such a video the packets stand in the order of presentation, and decoding can begin at every key frame.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Buffer = bytes | bytearray | memoryview


class StoredVideo:
    """A video in memory.

    Args:
        content: the file.

    Raises:
        ValueError: it isn't a video of this kind.
    """

    def __init__(self, content: Buffer) -> None:
        from av.video.reformatter import VideoReformatter

        self._content = content
        self._reformatter = VideoReformatter()  # a frame's own one is made anew for each, with a thread for each core
        with self._opened() as (_, stream):  # its entries are gone with it
            entries = [(entry.timestamp, entry.is_keyframe) for entry in stream.index_entries]
        self._ticks = [ticks for ticks, _ in entries]
        self._keys = [number for number, (_, is_key) in enumerate(entries) if is_key]
        if not self._keys or self._keys[0] != 0 or self._ticks != sorted(set(self._ticks)):
            raise ValueError("its frames can't be told by their times, or it doesn't begin with a key frame")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._ticks)

    def read(self, frames: Sequence[int], out: NDArray[np.uint8]) -> None:
        """Decode some frames.

        Args:
            frames: their numbers, in any order, any of them more than once.
            out: uint8 [len(frames), H, W, 3], RGB, is overwritten.

        Raises:
            ValueError: there is no such frame, it can't be decoded, or it has another size.
        """
        if min(frames) < 0 or max(frames) >= len(self):
            raise ValueError(f"frames {min(frames)} to {max(frames)} are wanted, but it has {len(self)}")
        places: dict[int, list[int]] = {}
        for place, frame in enumerate(frames):
            places.setdefault(frame, []).append(place)
        for number, picture in self._decoded(sorted(places)):
            first, *others = places.pop(number)
            self._to_rgb(picture, out[first])
            out[others] = out[first]
        if places:
            raise ValueError(f"frame {min(places)} can't be decoded")

    def all(self, *, step: int) -> Iterator[NDArray[np.uint8]]:
        """Decode the video to its end; every `step`-th frame as uint8 [H, W, 3].

        Raises:
            ValueError: a frame can't be decoded.
        """
        with self._opened() as (container, stream):
            number = -1
            for number, picture in enumerate(container.decode(stream)):
                if number % step == 0:
                    frame = np.empty((picture.height, picture.width, 3), np.uint8)
                    self._to_rgb(picture, frame)
                    yield frame
        if number + 1 != len(self):
            raise ValueError(f"{number + 1} of {len(self)} frames can be decoded")

    def _decoded(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The wanted frames, ascending; from one to the next by decoding on, or by a seek where a key frame lies between."""
        with self._opened() as (container, stream):
            at = None  # the frame that was decoded last
            position = 0
            while position < len(wanted):
                key = self._keys[bisect_left(self._keys, wanted[position] + 1) - 1]
                if at is None or key > at + 1:
                    container.seek(self._ticks[key], stream=stream)
                for picture in container.decode(stream):
                    at = bisect_left(self._ticks, picture.pts if picture.pts is not None else -1)
                    if at == wanted[position]:
                        yield at, picture
                        position += 1
                        break
                    if at > wanted[position]:
                        return
                else:
                    return

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        import av

        try:
            with av.open(io.BytesIO(self._content), format="mp4") as opened:
                container = cast("InputContainer", opened)
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise ValueError("not a video that can be decoded: its codec is unknown")
                stream.thread_type, stream.codec_context.thread_count = "NONE", 1
                yield container, stream
        except (av.FFmpegError, IndexError) as error:
            raise ValueError(f"not a video that can be decoded: {error}") from error

    def _to_rgb(self, picture: VideoFrame, out: NDArray[np.uint8]) -> None:
        if out.shape != (picture.height, picture.width, 3):
            size = f"{picture.width}x{picture.height}"
            raise ValueError(f"a frame decodes to {size}, expected {out.shape[1]}x{out.shape[0]}")
        from av.video.reformatter import ColorRange, Colorspace

        converted = self._reformatter.reformat(
            picture, format="rgb24", src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.MPEG, threads=1
        )
        out[...] = converted.to_ndarray()
