"""What each codec gives back of a clip, whole and in parts, and what it makes of damage."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.errors import UsageError
from vidpipe.shards.codecs import CODECS, Codec, CodecSpec, make_codec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPECS = {
    "tensor": CodecSpec(name="tensor"),
    "float16": CodecSpec(name="tensor", dtype="float16", mean=MEAN, std=STD),
    "jpeg": CodecSpec(name="jpeg", quality=95),
    "mp4": CodecSpec(name="mp4", crf=10),
}


@pytest.fixture(params=SPECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return make_codec(SPECS[request.param])


@pytest.fixture(scope="module")
def video() -> NDArray[np.uint8]:
    """30 smooth frames of 64x48 that differ from each other."""
    t, y, x = np.meshgrid(np.arange(30), np.arange(48), np.arange(64), indexing="ij")
    return np.stack([(x * 3 + t * 4) % 256, (y * 5 + t) % 256, (x + y + t * 6) % 256], axis=-1).astype(np.uint8)


def _members(codec: Codec, video: NDArray[np.uint8]) -> tuple[list[bytes], tuple[int, ...]]:
    encoded = codec.encode(video)
    assert [member.extension for member in encoded.members] == codec.extensions(len(video))
    return [b"".join(bytes(piece) for piece in member.pieces) for member in encoded.members], encoded.crc32


def test_all_codecs_are_tested() -> None:
    assert {spec.name for spec in SPECS.values()} == set(CODECS)


def test_frames_come_back(codec: Codec, video: NDArray[np.uint8]) -> None:
    members, checksums = _members(codec, video)
    decoded = codec.decode(members)
    assert codec.decoded_shape(members) == video.shape
    assert codec.intact(members, video.shape[:3], checksums)
    if codec.spec.name == "tensor":
        assert np.array_equal(decoded, video)
    else:
        smooth = (
            np.abs(np.diff(video.astype(int), axis=2, prepend=0)).max(axis=-1) < 40
        )  # not where colours wrap around
        assert np.abs(decoded.astype(int) - video)[smooth].mean() < 8


def test_parts_are_the_frames_of_the_whole(codec: Codec, video: NDArray[np.uint8]) -> None:
    members, _ = _members(codec, video)
    frames = [3, 4, 5, 17, 29, 29]
    parts = codec.parts(video.shape[:3], [len(member) for member in members], frames)
    content = [members[part.member][part.offset : part.offset + part.size] for part in parts]
    out = np.zeros((len(frames), *video.shape[1:]), np.uint8)
    codec.decode_parts(content, frames, out)
    assert np.array_equal(out, codec.decode(members)[frames])


def test_damage_is_noticed(codec: Codec, video: NDArray[np.uint8]) -> None:
    members, checksums = _members(codec, video)
    damaged = bytearray(members[0])
    damaged[len(damaged) // 2] ^= 1
    assert not codec.intact([bytes(damaged), *members[1:]], video.shape[:3], checksums)
    with pytest.raises(ValueError):
        codec.decode([b"garbage"] * len(members))
    with pytest.raises(ValueError):
        codec.decode([member[: len(member) // 2] for member in members])


@pytest.mark.parametrize(("name", "usual"), [("jpeg", {"quality": 90}), ("mp4", {"crf": 20})])
def test_quality_is_what_was_asked_for(name: str, usual: dict[str, int], video: NDArray[np.uint8]) -> None:
    def size(**options: int) -> int:
        return sum(map(len, _members(make_codec(CodecSpec(name=name, **options)), video)[0]))

    coarse = {"quality": 30} if name == "jpeg" else {"crf": 40}
    assert size(**coarse) < 0.8 * size() and size() == size(**usual)


def test_float16_holds_the_normalised_clip_and_loses_no_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    codec = make_codec(SPECS["float16"])
    members, _ = _members(codec, levels)
    stored = np.load(io.BytesIO(members[0]))
    assert stored.dtype == np.float16 and stored.shape == levels.shape
    assert np.abs(stored - (levels / 255 - MEAN) / STD).max() < 0.002
    assert np.array_equal(codec.decode(members), levels)


@pytest.mark.parametrize("spec", [{"std": (1e-7, 0.2, 0.2)}, {"mean": (90.0, 0.5, 0.5)}])
def test_float16_that_would_lose_levels_is_refused(spec: dict[str, tuple[float, float, float]]) -> None:
    with pytest.raises(UsageError, match="take dtype uint8"):
        make_codec(SPECS["float16"].model_copy(update=spec))
