"""Codecs: how a clip's frames become a sample's payload and back. One file each; `CODECS` is the list."""

from __future__ import annotations

from vidpipe.errors import UsageError
from vidpipe.recipes import nearest
from vidpipe.shards.codecs.base import Codec, CodecSpec
from vidpipe.shards.codecs.jpeg import JpegCodec
from vidpipe.shards.codecs.mp4 import Mp4Codec
from vidpipe.shards.codecs.tensor import Float16TensorCodec, TensorCodec

__all__ = ["CODECS", "Codec", "CodecSpec", "make_codec", "stores_whole_videos"]

CODECS: dict[str, type[Codec]] = {"jpeg": JpegCodec, "mp4": Mp4Codec, "tensor": TensorCodec}


def stores_whole_videos(spec: CodecSpec) -> bool:
    """Whether a sample is a whole video with as many frames as that has, instead of a clip of a fixed number of frames."""
    return CODECS[spec.name].whole_videos


def make_codec(spec: CodecSpec) -> Codec:
    """The codec that `spec` names.

    Raises:
        UsageError: there is none of that name; the message lists those that there are.
    """
    if spec.name not in CODECS:
        raise UsageError(f"no codec {spec.name!r}{nearest(spec.name, CODECS)}")
    if spec.name == "tensor" and spec.dtype == "float16":
        return Float16TensorCodec(spec)
    return CODECS[spec.name](spec)
