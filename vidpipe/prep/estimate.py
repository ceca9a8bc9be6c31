"""What a video will take: bytes of its samples and seconds of a core, from its header and the recipe. Pure.

The rates were measured on ten real clips (H.264, MPEG-4 and AV1, 320x180 to 1920x1080) in seconds of a core of an Intel Xeon. Single videos
took 0.4 to 2 times what they say, so they are for the sum of many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.codecs import make_codec, stores_whole_videos
from vidpipe.shards.tar import BLOCK
from vidpipe.video.header import Header
from vidpipe.video.spec import ClipSpec

SECONDS_A_START = 1.0  # of a decoding child, with its libraries

_DECODE_NS = 5.0  # a source pixel of every frame that is decoded: 1 to 7
_CONVERT_NS = 1.1, 6.0  # a source pixel and a stored pixel of every frame that is scaled and converted to RGB
_ENCODE_NS = {"tensor": 0.3, "jpeg": 2.7, "mp4": 20.0}  # a stored pixel; mp4: encoding, then decoding what was made
_STORE_NS = 2.0  # a byte: checksums, hash and writing
_LEAD_IN_FRAMES = 100  # decoded before a clip's first one, from the key frame on; at most half of a video
_JSON_BYTES = 420, 13  # of a sample, and for each of its frames; without frame indices about 9
_INDEX_BYTES = 200, 16  # in .idx and samples.parquet, of a sample and of each part that can be read alone
_BITS_BY_DISTANCE = 0.6  # frames of a whole video that lie n times as far apart take n to that power as many bits each
_USUAL = Header(320, 240, 30.0, 10.0, 300)  # where a header doesn't say


@dataclass(frozen=True, slots=True)
class VideoCost:
    """Of one video.

    Attributes:
        payload_bytes: the samples' frames; exact for `tensor`.
        bytes: all that the samples take in shards and indexes.
        seconds: of one core.
    """

    payload_bytes: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0


def estimate(header: Header | None, recipe: PrepRecipe, spec: ClipSpec) -> VideoCost:
    """What a sound video with this header takes; None stands for a usual one, 10 s of 320x240 at 30 frames/s.

    A picture that has to be turned takes what it takes unturned.
    """
    header = header or _USUAL
    source_fps = header.fps or _USUAL.fps or 1.0
    source_frames = header.num_frames or _USUAL.num_frames or 1
    width, height = spec.output_size(header.width, header.height)
    if stores_whole_videos(recipe.codec_spec):
        stored = math.ceil(source_frames / source_fps * spec.fps) if spec.fps else source_frames
        decoded: float = source_frames
    else:
        stored = spec.frames
        decoded = source_frames if recipe.strict else _decoded_frames(spec, source_frames, source_fps)
    codec = make_codec(recipe.codec_spec)
    payload = codec.nominal_bytes(stored, height, width)
    if stored < source_frames and stores_whole_videos(recipe.codec_spec):
        payload = round(payload * (source_frames / stored) ** _BITS_BY_DISTANCE)
    per_sample = payload + _around(len(codec.extensions(stored)), stored, payload)
    source_pixels, pixels = header.width * header.height, width * height
    source_ns, stored_ns = _CONVERT_NS
    converted = min(stored, source_frames) * spec.clips
    nanoseconds = (
        decoded * source_pixels * _DECODE_NS
        + converted * (source_pixels * source_ns + pixels * stored_ns)
        + stored * spec.clips * pixels * _ENCODE_NS[recipe.codec]
        + payload * spec.clips * _STORE_NS
    )
    return VideoCost(payload * spec.clips, per_sample * spec.clips, nanoseconds / 1e9)


def _decoded_frames(spec: ClipSpec, source_frames: int, source_fps: float) -> float:
    """Frames that have to be decoded for all clips of a video."""
    if spec.sampling == "uniform":
        return source_frames
    step = source_fps / spec.fps if spec.fps else spec.stride
    lead_in = min(_LEAD_IN_FRAMES, source_frames / 2)
    return min(source_frames, spec.clips * ((spec.frames - 1) * step + 1 + lead_in))


def _around(num_files: int, frames: int, payload: int) -> int:
    """Bytes of a sample beside its payload: JSON, label, headers and padding of the archive, index rows."""
    base, each = _JSON_BYTES
    row, part = _INDEX_BYTES
    padding = -payload % BLOCK if num_files == 1 else num_files * BLOCK // 2
    json_bytes = BLOCK + math.ceil((base + each * frames) / BLOCK) * BLOCK
    return 2 * BLOCK + json_bytes + num_files * BLOCK + padding + row + part * frames


def schedule_seconds(shards: list[float], workers: int) -> float:
    """How long workers take that make one shard after the other, each of so many seconds of a core."""
    busy = [0.0] * max(1, min(workers, len(shards)))
    for seconds in shards:
        busy[busy.index(min(busy))] += seconds
    return max(busy) + SECONDS_A_START if shards else 0.0
