"""Decoding with PyAV: one thread, only the packets that the wanted frames need, no other frame converted or resized.

It is told by the packets' times which frame is which, so the decoder may leave out what nothing else refers to. Measured with
PyAV 18.1 against the ffmpeg program: the same bytes for every format that it is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.clips import ClipBuffers, DecodingStoppedError
from vidpipe.video.demux import captured_complaints, open_container
from vidpipe.video.ffmpeg_backend import picture_filters
from vidpipe.video.files import library_path
from vidpipe.video.packets import needed_packets
from vidpipe.video.picture import CROP_EXACTLY
from vidpipe.video.probe import IndexedVideo, VideoInfo
from vidpipe.video.spec import ClipSpec

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_TURNS = {0: (), 90: ("transpose=clock",), 180: ("hflip", "vflip"), 270: ("transpose=cclock",)}


def decode_with_pyav(
    path: str | os.PathLike[str], video: IndexedVideo, spec: ClipSpec, buffers: ClipBuffers, *, strict: bool
) -> bool:
    """Fill `buffers` with the frames that they want.

    Args:
        strict: decode all packets, instead of those that the wanted frames need.

    Returns:
        Whether libav had nothing to complain of and called no frame corrupt; if it did, a wanted one may be concealed.

    Raises:
        DecodingStoppedError: not all frames came.
    """
    import av

    picture = _Picture(video.info, spec)
    missing = set(buffers.wanted)
    with library_path(path) as name, captured_complaints() as complaints:
        try:
            with open_container(name) as container:
                for index, frame in _numbered_frames(container, video, buffers.wanted, complaints, strict=strict):
                    if index in missing:
                        buffers.place(index)[...] = picture.rgb(frame)
                        buffers.share(index)
                        missing.remove(index)
        except av.FFmpegError as error:
            raise DecodingStoppedError(str(error)) from error
    if missing:
        raise DecodingStoppedError(f"{len(missing)} frames did not come")
    return not complaints


def _numbered_frames(
    container: InputContainer, video: IndexedVideo, wanted: Sequence[int], complaints: list[Any], *, strict: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Decoded frames with their numbers in the video, the wanted ones among them.

    Where times are guessed frames can only be counted, so all up to the last wanted one are decoded.
    """
    index = video.frames
    if video.has_guessed_times or strict:
        stop = None if strict else int(video.packets_before[wanted[-1]])
        frames = _decoded(container, video.info, [range(stop or sys.maxsize)], complaints, needed=None)
    else:
        needed = frozenset(index.packets[wanted].tolist()) if video.info.codec == "h264" else None
        frames = _decoded(container, video.info, needed_packets(index, wanted), complaints, needed=needed)
    if video.has_guessed_times:
        yield from enumerate(frames)
        return
    numbers = {ticks: number for number, ticks in enumerate(index.ticks.tolist())}
    for frame in frames:
        if frame.pts in numbers:
            yield numbers[frame.pts], frame


def _decoded(
    container: InputContainer,
    info: VideoInfo,
    runs: Sequence[range],
    complaints: list[Any],
    *,
    needed: frozenset[int] | None,
) -> Iterator[VideoFrame]:
    """The frames of runs of packets, each of which can be decoded alone.

    Args:
        complaints: are freed of what is said when other packets are read, and told of corrupt frames, which libav conceals
            without a word; others may refer to them.
        needed: the other packets may be left out where no picture refers to theirs; None if that can't be told for sure.
            (H.264 can tell; what HEVC calls non-reference pictures may be referred to from higher temporal layers.)
    """
    stream = cast("VideoStream", container.streams[info.stream_index])
    context = stream.codec_context
    context.thread_type, context.thread_count = "NONE", 1
    context.flags |= CROP_EXACTLY
    queue = iter(runs)
    run, is_skipping, said = next(queue), False, 0
    for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
        if number not in run:
            del complaints[said:]
            continue
        if needed is not None and is_skipping != (number not in needed):
            is_skipping = not is_skipping
            context.skip_frame = "NONREF" if is_skipping else "DEFAULT"
        yield from _checked(context.decode(packet), complaints)
        said = len(complaints)
        if number == run.stop - 1:
            yield from _checked(context.decode(None), complaints)
            said = len(complaints)
            following = next(queue, None)
            if following is None:
                return
            context.flush_buffers()
            run = following
    yield from _checked(context.decode(None), complaints)


def _checked(frames: Sequence[VideoFrame], complaints: list[Any]) -> Iterator[VideoFrame]:
    for frame in frames:
        if frame.is_corrupt:
            complaints.append(f"corrupt frame at {frame.pts}")
        yield frame


class _Picture:
    """Turns, scales and converts frames as ffmpeg does it by itself."""

    def __init__(self, info: VideoInfo, spec: ClipSpec) -> None:
        self._filters = [*_TURNS[info.rotation], *picture_filters(info, spec), "format=rgb24"]
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A decoded frame as uint8 [H, W, 3]; valid until the next one."""
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if self._graph is None or kind != self._made_for:
            self._graph, self._made_for = self._made(frame), kind
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]  # it keeps its frame
        content: Any = plane
        rows = np.frombuffer(content, np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3)

    def _made(self, frame: VideoFrame) -> Graph:
        from av.filter import Graph

        graph = Graph()
        graph.threads = 1
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1"  # times play no role here
            f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )
        nodes = [graph.add("buffer", source)]
        for text in self._filters:
            name, _, arguments = text.partition("=")
            nodes.append(graph.add(name, arguments or None))
        graph.link_nodes(*nodes, graph.add("buffersink"))
        graph.configure()
        return graph
