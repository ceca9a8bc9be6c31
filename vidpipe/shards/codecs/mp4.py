"""`mp4`: the whole video, encoded again as short-GOP H.264 at the stored size: the smallest, and any window can be cut later.

All frames of the source are there, in their order and with their times (or, sampled by `fps`, those of that rate). A window
is frame-accurate: decoding begins at the key frame before it, at most `GOP - 1` frames earlier.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from vidpipe.shards.checksum import Buffer, crc32
from vidpipe.shards.codecs.base import EncodedClip, EncodedMember, EncodedVideo, Frames, Part, VideoCodec
from vidpipe.video.encode import write_h264
from vidpipe.video.spec import ClipSpec
from vidpipe.video.stored_video import StoredVideo
from vidpipe.video.transcode import transcode_video

DEFAULT_CRF = 20
GOP = 12
_NOMINAL_BITS_PER_PIXEL = 0.25  # of CRF 20 with such a GOP, on Kinetics-like video
_NOMINAL_PIXELS = 320 * 240  # of a frame at which that holds; larger ones take fewer bits a pixel
_BITS_BY_PIXELS = 0.35
_CRF_OF_HALF_THE_BITS = 6  # so many steps further, half the bits


class Mp4Codec(VideoCodec):
    """H.264 without B-frames, a key frame every `GOP` frames, 4:2:0, BT.709, limited range."""

    summary: ClassVar[str] = (
        "the whole video as short-GOP H.264 (crf option, 20 by default): the smallest; any window later"
    )

    def encode_file(self, path: Path, clip: ClipSpec) -> EncodedVideo:
        """One file, one checksum."""
        made = transcode_video(path, clip, crf=self._crf, gop=GOP)
        width, height = made.size
        return EncodedVideo(
            _payload(made.content), made.info, (len(made.times_seconds), height, width), made.times_seconds
        )

    def some_frames(self, payload: EncodedClip, *, step: int) -> Iterator[Frames]:
        """Decodes all of it."""
        (content,) = payload.members[0].pieces
        for frame in StoredVideo(content).all(step=step):
            yield frame[None]

    def encode(self, video: Frames) -> EncodedClip:
        """A video that is made of a clip's frames, at 30 frames a second."""
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            write_h264(file.name, np.ascontiguousarray(video), fps=30, crf=self._crf, gop=GOP)
            return _payload(Path(file.name).read_bytes())

    def extensions(self, frames: int) -> list[str]:
        """One file."""
        return ["mp4"]

    def decode(self, members: Sequence[Buffer]) -> Frames:
        """All frames."""
        return np.stack(list(StoredVideo(members[0]).all(step=1)))

    def decoded_shape(self, members: Sequence[Buffer]) -> tuple[int, ...]:
        """Holds one frame at a time."""
        video = StoredVideo(members[0])
        (shape,) = {frame.shape for frame in video.all(step=1)}
        return (len(video), *shape)

    def parts(self, shape: tuple[int, int, int], sizes: Sequence[int], frames: Sequence[int]) -> list[Part]:
        """The file, for all frames."""
        return [Part(0, 0, int(sizes[0]), crc32_index=0)]

    def decode_parts(self, parts: Sequence[Buffer], frames: Sequence[int], out: Frames) -> None:
        """Decodes from the key frame before the first one on, with seeks where frames lie far apart."""
        StoredVideo(parts[0]).read(frames, out)

    def intact(self, members: Sequence[Buffer], shape: tuple[int, int, int], checksums: Sequence[int]) -> bool:
        """Compares the file's checksum."""
        return [crc32(members[0])] == list(checksums)

    def nominal_bytes(self, frames: int, height: int, width: int) -> int:
        """What such videos take on average."""
        bits: float = _NOMINAL_BITS_PER_PIXEL * 2.0 ** ((DEFAULT_CRF - self._crf) / _CRF_OF_HALF_THE_BITS)
        by_size: float = (_NOMINAL_PIXELS / (height * width)) ** _BITS_BY_PIXELS
        return round(frames * height * width * bits * by_size / 8)

    @property
    def _crf(self) -> int:
        return DEFAULT_CRF if self.spec.crf is None else self.spec.crf


def _payload(content: bytes) -> EncodedClip:
    return EncodedClip((EncodedMember("mp4", (content,)),), (crc32(content),))
